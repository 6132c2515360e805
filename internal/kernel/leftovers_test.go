package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	route "github.com/vishvananda/netlink"
	"varco.dev/internal/kernel"
	"varco.dev/internal/nettest"
)

// kubeProxyRules are what kube-proxy leaves in tables that iptables-nft made, among rules of others. Each line is a table, a
// chain, and the chains that its rules lead to, in order; "-" is a rule that leads nowhere. Lines with a plus stay.
const kubeProxyRules = `
+nat    PREROUTING          FOREIGN
 nat    PREROUTING          KUBE-SERVICES
+nat    PREROUTING          CNI-HOSTPORT-DNAT
 nat    OUTPUT              KUBE-SERVICES
+nat    OUTPUT              -
+nat    POSTROUTING         CNI-1234 -
 nat    POSTROUTING         KUBE-POSTROUTING
+nat    POSTROUTING         FOREIGN
+nat    CNI-1234            -
+nat    CNI-HOSTPORT-DNAT   -
+nat    FOREIGN             -
+nat    KUBE-MARK-DROP      -
+nat    KUBE-KUBELET-CANARY
+nat    KUBE-SVC            -
+nat    KUBE-FIREWALL       -
 nat    KUBE-SERVICES       KUBE-SVC-A KUBE-EXT-A KUBE-FW-A KUBE-NODEPORTS KUBE-NODE-PORT KUBE-LOAD-BALANCER KUBE-MARK-MASQ
 nat    KUBE-NODEPORTS      KUBE-EXT-A
 nat    KUBE-EXT-A          KUBE-MARK-MASQ KUBE-SVC-A KUBE-SVL-A
 nat    KUBE-SVL-A          KUBE-SEP-A
 nat    KUBE-SVC-A          KUBE-SEP-A KUBE-SEP-B
 nat    KUBE-SEP-A          KUBE-MARK-MASQ -
 nat    KUBE-SEP-B          KUBE-MARK-MASQ -
 nat    KUBE-FW-A           KUBE-XLB-A
 nat    KUBE-XLB-A          KUBE-SVC-A
 nat    KUBE-POSTROUTING    - -
 nat    KUBE-MARK-MASQ      -
 nat    KUBE-NODE-PORT      -
 nat    KUBE-LOAD-BALANCER  KUBE-MARK-MASQ
 nat    KUBE-PROXY-CANARY
+filter INPUT               KUBE-FIREWALL
 filter INPUT               KUBE-PROXY-FIREWALL KUBE-NODEPORTS KUBE-EXTERNAL-SERVICES KUBE-NODE-PORT KUBE-IPVS-FILTER
+filter INPUT               -
 filter FORWARD             KUBE-PROXY-FIREWALL KUBE-FORWARD KUBE-SERVICES KUBE-EXTERNAL-SERVICES
+filter FORWARD             FOREIGN
 filter OUTPUT              KUBE-PROXY-FIREWALL KUBE-SERVICES KUBE-IPVS-OUT-FILTER
+filter OUTPUT              KUBE-FIREWALL
+filter FOREIGN             -
+filter KUBE-FIREWALL       -
+filter KUBE-SVC-A          -
 filter KUBE-PROXY-FIREWALL KUBE-SOURCE-RANGES-FIREWALL
 filter KUBE-SOURCE-RANGES-FIREWALL -
 filter KUBE-SERVICES       -
 filter KUBE-EXTERNAL-SERVICES -
 filter KUBE-NODEPORTS      -
 filter KUBE-NODE-PORT      -
 filter KUBE-FORWARD        - -
 filter KUBE-IPVS-FILTER    -
 filter KUBE-IPVS-OUT-FILTER -
 filter KUBE-PROXY-CANARY
+mangle KUBE-IPTABLES-HINT
+mangle KUBE-KUBELET-CANARY
 mangle KUBE-PROXY-CANARY
+raw    PREROUTING          KUBE-SERVICES
+raw    KUBE-SERVICES       -
`

var chainHooks = map[string]*nftables.ChainHook{
	"PREROUTING": nftables.ChainHookPrerouting, "INPUT": nftables.ChainHookInput, "FORWARD": nftables.ChainHookForward,
	"OUTPUT": nftables.ChainHookOutput, "POSTROUTING": nftables.ChainHookPostrouting,
}

// writeRules writes rules in the form above to tables of a family. Chains are there before the rules that lead to them.
func writeRules(t *testing.T, ns *nettest.Namespace, f nftables.TableFamily, rules string) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	tables, chains := map[string]*nftables.Table{}, map[string]*nftables.Chain{}
	var lines [][]string
	for line := range strings.Lines(rules) {
		if words := strings.Fields(strings.TrimLeft(line, "+ ")); len(words) > 0 {
			lines = append(lines, words)
		}
	}
	for _, words := range lines {
		table, name := words[0], words[1]
		if tables[table] == nil {
			tables[table] = conn.AddTable(&nftables.Table{Name: table, Family: f})
		}
		if chains[table+name] != nil {
			continue
		}
		c := &nftables.Chain{Name: name, Table: tables[table]}
		if hook := chainHooks[name]; hook != nil {
			c.Hooknum, c.Priority, c.Type = hook, nftables.ChainPriorityFilter, nftables.ChainTypeFilter
		}
		chains[table+name] = conn.AddChain(c)
	}
	for _, words := range lines {
		table, name := words[0], words[1]
		for _, to := range words[2:] {
			verdict := &expr.Verdict{Kind: expr.VerdictJump, Chain: to}
			if to == "-" {
				verdict = &expr.Verdict{Kind: expr.VerdictReturn}
			}
			conn.AddRule(&nftables.Rule{Table: tables[table], Chain: chains[table+name], Exprs: []expr.Any{&expr.Counter{}, verdict}})
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// readRules returns the rules in the form above, one chain a line, sorted.
func readRules(t *testing.T, ns *nettest.Namespace, f nftables.TableFamily) (out []string) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	chains, err := conn.ListChainsOfTableFamily(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chains {
		line := c.Table.Name + " " + c.Name
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			switch v := r.Exprs[1].(*expr.Verdict); v.Kind {
			case expr.VerdictJump:
				line += " " + v.Chain
			default:
				line += " -"
			}
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// staying returns those of the rules that stay, in the form of readRules.
func staying(rules string) (out []string) {
	for line := range strings.Lines(rules) {
		if !strings.HasPrefix(line, "+") {
			words := strings.Fields(line)
			if len(words) == 0 || chainHooks[words[1]] == nil {
				continue
			}
			line = "+" + words[0] + " " + words[1] // the chain stays, the rules do not
		}
		words := strings.Fields(line[1:])
		key := words[0] + " " + words[1]
		at := slices.IndexFunc(out, func(s string) bool { return s == key || strings.HasPrefix(s, key+" ") })
		if at < 0 {
			out = append(out, key)
			at = len(out) - 1
		}
		for _, to := range words[2:] {
			out[at] += " " + to
		}
	}
	slices.Sort(out)
	return out
}

func newNode(t *testing.T) *nettest.Namespace {
	t.Helper()
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func TestLeftoversOfIPTables(t *testing.T) {
	ns := newNode(t)
	writeRules(t, ns, nftables.TableFamilyIPv4, kubeProxyRules)
	writeRules(t, ns, nftables.TableFamilyIPv6, kubeProxyRules)
	writeRules(t, ns, nftables.TableFamilyINet, kubeProxyRules) // which iptables does not use
	others := readRules(t, ns, nftables.TableFamilyINet)
	for _, want := range []string{
		"iptables-nft ip nat: 14 chains, 3 rules that led to them\n" +
			"iptables-nft ip filter: 10 chains, 12 rules that led to them\n" +
			"iptables-nft ip mangle: 1 chains, 0 rules that led to them\n" +
			"iptables-nft ip6 nat: 14 chains, 3 rules that led to them\n" +
			"iptables-nft ip6 filter: 10 chains, 12 rules that led to them\n" +
			"iptables-nft ip6 mangle: 1 chains, 0 rules that led to them",
		"", // when repeated
	} {
		removed, err := kernel.RemoveKubeProxyLeftovers(t.Context(), ns.FD())
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, strings.Join(removed, "\n")); diff != "" {
			t.Errorf("removed (-want +got):\n%s", diff)
		}
		for _, f := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
			if diff := cmp.Diff(staying(kubeProxyRules), readRules(t, ns, f)); diff != "" {
				t.Errorf("rules of family %d (-want +got):\n%s", f, diff)
			}
		}
	}
	if diff := cmp.Diff(others, readRules(t, ns, nftables.TableFamilyINet)); diff != "" {
		t.Errorf("rules of family inet (-before +after):\n%s", diff)
	}
}

// TestLeftoversInUse has rules of others that lead to chains of kube-proxy.
func TestLeftoversInUse(t *testing.T) {
	ns := newNode(t)
	const rules = `
+nat PREROUTING     FOREIGN
 nat PREROUTING     KUBE-SERVICES
+nat POSTROUTING    KUBE-MARK-MASQ
+nat FOREIGN        KUBE-SVC-A
 nat KUBE-SERVICES  KUBE-SVC-A KUBE-SVC-B
+nat KUBE-SVC-A     KUBE-SEP-A
 nat KUBE-SVC-B     KUBE-SEP-B
+nat KUBE-SEP-A     KUBE-MARK-MASQ
 nat KUBE-SEP-B     KUBE-MARK-MASQ
+nat KUBE-MARK-MASQ -
`
	writeRules(t, ns, nftables.TableFamilyIPv4, rules)
	removed, err := kernel.RemoveKubeProxyLeftovers(t.Context(), ns.FD())
	if len(removed) != 1 {
		t.Errorf("removed %q, want one line", removed)
	}
	if diff := cmp.Diff(staying(rules), readRules(t, ns, nftables.TableFamilyIPv4)); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	for _, want := range []string{"KUBE-SVC-A (used by a rule of FOREIGN)", "KUBE-MARK-MASQ (used by a rule of POSTROUTING)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if again, err2 := kernel.RemoveKubeProxyLeftovers(t.Context(), ns.FD()); len(again) != 0 || err2 == nil {
		t.Errorf("repeated, it removed %q and returned %v; want nothing and an error", again, err2)
	}
}

func TestLeftoversOfNFTables(t *testing.T) {
	ns := newNode(t)
	families := []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet}
	for _, f := range families {
		writeRules(t, ns, f, "kube-proxy services service-a\nkube-proxy service-a -\nkube-proxy-other services -")
	}
	removed, err := kernel.RemoveKubeProxyLeftovers(t.Context(), ns.FD())
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"nftables table ip kube-proxy", "nftables table ip6 kube-proxy"}, removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	for i, want := range []int{1, 1, 3} {
		if got := readRules(t, ns, families[i]); len(got) != want {
			t.Errorf("family %d has the chains %q, want %d", families[i], got, want)
		}
	}
}

// TestLeftoversOfIPVS has no IPVS, which is not in every kernel, but what goes with it.
func TestLeftoversOfIPVS(t *testing.T) {
	ns := newNode(t)
	if err := ns.AddBridge("kube-ipvs0"); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddBridge("kube-bridge"); err != nil {
		t.Fatal(err)
	}
	sets := []string{"KUBE-CLUSTER-IP", "KUBE-6-LOAD-BALANCER-SOURCE-CID", "KUBE-OTHER", "FOREIGN"}
	err := ns.Do(func() error {
		for _, name := range sets {
			if err := route.IpsetCreate(name, "hash:ip", route.IpsetCreateOptions{}); err != nil {
				return fmt.Errorf("create set %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"interface kube-ipvs0", "IP set KUBE-CLUSTER-IP", "IP set KUBE-6-LOAD-BALANCER-SOURCE-CID"}
	for _, want := range [][]string{want, nil} {
		removed, err := kernel.RemoveKubeProxyLeftovers(t.Context(), ns.FD())
		if err != nil {
			t.Error(err)
		}
		removed = slices.DeleteFunc(removed, func(s string) bool { return s == "IPVS virtual servers" })
		if diff := cmp.Diff(want, removed); diff != "" {
			t.Errorf("removed (-want +got):\n%s", diff)
		}
	}
	err = ns.Do(func() error {
		for _, name := range sets[2:] {
			if _, err := route.IpsetList(name); err != nil {
				t.Errorf("list set %s: %v", name, err)
			}
		}
		_, err := route.LinkByName("kube-bridge")
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLeftoversContext(t *testing.T) {
	ns := newNode(t)
	writeRules(t, ns, nftables.TableFamilyIPv4, "kube-proxy services -")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	removed, err := kernel.RemoveKubeProxyLeftovers(ctx, ns.FD())
	if len(removed) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("removed %q and returned %v after the end of the context", removed, err)
	}
	// Without a descriptor it works where the calling thread is.
	err = ns.Do(func() error {
		removed, err := kernel.RemoveKubeProxyLeftovers(t.Context(), 0)
		if len(removed) != 1 {
			t.Errorf("removed %q, want the table", removed)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
