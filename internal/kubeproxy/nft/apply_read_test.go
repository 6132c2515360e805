package nft_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// recorder is a Kernel that keeps what is committed.
type recorder struct {
	nft.Kernel
	commits []nft.Transaction
}

func (r *recorder) Commit(ctx context.Context, tx nft.Transaction) error {
	r.commits = append(r.commits, tx)
	return r.Kernel.Commit(ctx, tx)
}

func (r *recorder) take() []nft.Transaction {
	commits := r.commits
	r.commits = nil
	return commits
}

// everything is a state with something in every set.
func everything() service.Changes {
	all := service.Changes{
		NodeAddrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.240.0.11"), netip.MustParseAddr("::")},
		CIDRs:     []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("255.0.0.0/8"), netip.MustParsePrefix("fd60::/108")},
	}
	for i := range 24 {
		p := port(families[i%2], i, i%5)
		p.HasEndpoints = true
		if i%3 == 0 {
			p.External, p.Local = service.PolicyLocal, p.Cluster[:min(1, len(p.Cluster))]
		}
		if i%4 == 1 {
			p.Affinity = 3 * time.Hour
		}
		if i%5 == 2 {
			p.Balance = service.HashSourceIP
		}
		if i%6 == 4 {
			p.Frontends = append(p.Frontends, service.Frontend{Kind: service.LoadBalancerIP, Addr: netip.MustParseAddrPort("192.0.2.1:80")})
			p.Frontends[len(p.Frontends)-1].Addr = netip.AddrPortFrom(p.Frontends[0].Addr.Addr().Next(), 8080)
			p.Sources = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.7/32")}
		}
		all.Ports = append(all.Ports, service.Change{New: p})
	}
	return all
}

func everyConfig(ns *nettest.Namespace) nft.Config {
	c := config(ns)
	c.Counters = nft.CountAll
	c.Detector.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fdf4::/16")}
	return c
}

// TestRestartChangesNothing starts another data plane on the tables of one before it, which serve the same Services.
func TestRestartChangesNothing(t *testing.T) {
	ns := namespace(t)
	all := everything()
	first := &recorder{Kernel: netlinkKernel(t, everyConfig(ns))}
	plane := nft.New(first)
	if err := plane.Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if tx := first.take(); len(tx) != 1 || !tx[0].Replace {
		t.Fatalf("the first time: %d transactions, not one that replaces", len(tx))
	}
	for i, c := range all.Ports { // slots that are not in the order of the addresses
		if len(c.New.Cluster) < 2 {
			continue
		}
		less := *c.New
		less.Cluster = less.Cluster[1:]
		if err := plane.Update(t.Context(), service.Changes{Ports: []service.Change{{Old: c.New, New: &less}}}); err != nil {
			t.Fatal(err)
		}
		all.Ports[i].New = &less
	}
	second := &recorder{Kernel: netlinkKernel(t, everyConfig(ns))}
	plane = nft.New(second)
	for range 2 {
		if err := plane.Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	if tx := second.take(); len(tx) != 0 {
		t.Fatalf("%d transactions, replace %t, deletes %v, adds %v, classes %v", len(tx), tx[0].Replace, tx[0].Delete, tx[0].Add, tx[0].Classes)
	}
	for i, c := range all.Ports { // and everything that it has taken over can be taken back
		if err := plane.Update(t.Context(), service.Changes{Ports: []service.Change{{Old: c.New}}}); err != nil {
			t.Fatalf("delete Service %d: %v", i, err)
		}
	}
	if err := plane.Update(t.Context(), service.Changes{OldNode: all.NodeAddrs, OldCIDRs: all.CIDRs}); err != nil {
		t.Fatal(err)
	}
	c, err := second.Read(t.Context())
	if err != nil || len(c.Elements) != 0 {
		t.Errorf("error %v, left are %v", err, c.Elements)
	}
}

// TestDamageIsRepairedInPlace has another program change elements.
func TestDamageIsRepairedInPlace(t *testing.T) {
	ns := namespace(t)
	all := everything()
	kernel := &recorder{Kernel: netlinkKernel(t, everyConfig(ns))}
	plane := nft.New(kernel)
	if err := plane.Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	before, err := kernel.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		damage func(elements []nft.Element) nft.Transaction
	}{
		{"an element of each set is gone", func(elements []nft.Element) (tx nft.Transaction) {
			for i, e := range elements {
				if i == 0 || elements[i-1].Set != e.Set {
					tx.Delete = append(tx.Delete, e)
				}
			}
			return tx
		}},
		{"values are exchanged", func(elements []nft.Element) (tx nft.Transaction) {
			for i, e := range elements {
				if i > 0 && elements[i-1].Set == e.Set && elements[i-1].Family == e.Family && elements[i-1].Value != e.Value && len(tx.Add) < 50 {
					tx.Delete = append(tx.Delete, e)
					tx.Add = append(tx.Add, nft.Element{Place: e.Place, Value: elements[i-1].Value})
				}
			}
			return tx
		}},
		{"a set is flushed", func(elements []nft.Element) (tx nft.Transaction) {
			for _, e := range elements {
				if e.Set == nft.Services {
					tx.Delete = append(tx.Delete, e)
				}
			}
			return tx
		}},
		{"elements are added", func([]nft.Element) (tx nft.Transaction) {
			for _, e := range nft.Render(port(service.IPv4, 200, 3), 5, nft.Slots{Cluster: port(service.IPv4, 200, 3).Cluster}, nft.CountAll) {
				if e.Set != nft.Endpoints { // some are there
					tx.Add = append(tx.Add, e)
				}
			}
			return tx
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, err := kernel.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tx := c.damage(now.Elements)
			tx.Generation = now.Generation
			if err := kernel.Commit(t.Context(), tx); err != nil || len(tx.Delete)+len(tx.Add) == 0 {
				t.Fatalf("damage: %d elements, error %v", len(tx.Delete)+len(tx.Add), err)
			}
			kernel.take()
			if err := plane.Replace(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			if repairs := kernel.take(); len(repairs) != 1 || repairs[0].Replace {
				t.Errorf("repaired by %d transactions, the first replaces: %t", len(repairs), repairs[0].Replace)
			}
			after, err := kernel.Read(t.Context())
			if err != nil || after.Generation != before.Generation {
				t.Errorf("generation %d after, %d before; error %v", after.Generation, before.Generation, err)
			}
			if diff := cmp.Diff(counts(before), counts(after)); diff != "" {
				t.Errorf("elements by set (-want +got)\n%s", diff)
			}
			second := &recorder{Kernel: kernel.Kernel}
			if err := nft.New(second).Replace(t.Context(), all); err != nil || len(second.take()) != 0 {
				t.Errorf("another look finds more to repair; error %v", err)
			}
		})
	}
}

// counts returns the number of elements of each set: which numbers they hold may differ after damage.
func counts(c nft.Content) map[string]int {
	n := map[string]int{}
	for _, e := range c.Elements {
		n[e.Set.String()]++
	}
	return n
}

// makeDormant switches off the chains of the IPv4 table.
func makeDormant(t *testing.T, ns *nettest.Namespace) {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(nft.TableName + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: []byte{0, 0, 0, 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	message := func(kind netlink.HeaderType, body []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge}, Data: body}
	}
	edge := []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	_, err = conn.SendMessages([]netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, edge),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, append([]byte{unix.NFPROTO_IPV4, 0, 0, 0}, attributes...)),
		message(unix.NFNL_MSG_BATCH_END, edge),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Receive(); err != nil {
		t.Fatal(err)
	}
}

// TestForeignRulesAreReplaced has another program change what is not an element, and programs with another Config.
func TestForeignRulesAreReplaced(t *testing.T) {
	ns := namespace(t)
	all := everything()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: nft.TableName, Family: nftables.TableFamilyIPv6}
	chain := func(name string) *nftables.Chain { return &nftables.Chain{Table: table, Name: name} }
	rules := func(name string) []*nftables.Rule {
		all, err := conn.GetRules(table, chain(name))
		if err != nil || len(all) == 0 {
			t.Fatalf("rules of %s: %d, error %v", name, len(all), err)
		}
		return all
	}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	for _, c := range []struct {
		name   string
		damage func()
		config func(*nft.Config)
	}{
		{name: "nothing"},
		{name: "a chain is flushed", damage: func() { conn.FlushChain(chain("services")) }},
		{name: "the chain of a class is flushed", damage: func() { conn.FlushChain(chain("nodeport-tcp-1")) }},
		{name: "a rule is deleted", damage: func() { _ = conn.DelRule(rules("masquerading")[0]) }},
		{name: "a rule is added", damage: func() { conn.AddRule(&nftables.Rule{Table: table, Chain: chain("masquerading"), Exprs: accept}) }},
		{name: "a rule is replaced", damage: func() {
			r := rules("masquerading")[0]
			conn.ReplaceRule(&nftables.Rule{Table: table, Chain: chain("masquerading"), Handle: r.Handle, Exprs: accept})
		}},
		{name: "a chain is added", damage: func() { conn.AddChain(chain("mine")) }},
		{name: "a base chain is added", damage: func() {
			conn.AddChain(&nftables.Chain{Table: table, Name: "drop-all", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		}},
		{name: "a policy is changed", damage: func() {
			policy, c := nftables.ChainPolicyDrop, chain("filter-input")
			c.Policy = &policy
			conn.AddChain(c)
		}},
		{name: "a verdict is deleted", damage: func() {
			set, err := conn.GetSetByName(table, "refusals")
			if err != nil {
				t.Fatal(err)
			}
			elements, err := conn.GetSetElements(set)
			if err != nil || len(elements) == 0 {
				t.Fatal(len(elements), err)
			}
			if err := conn.SetDeleteElements(set, elements[:1]); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a table is deleted", damage: func() { conn.DelTable(table) }},
		{name: "a table is dormant", damage: func() { makeDormant(t, ns) }},
		{name: "the whole ruleset is flushed", damage: func() { conn.FlushRuleset() }},
		{name: "another program had another Config", config: func(c *nft.Config) { c.MasqueradeAll = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := everyConfig(ns)
			if c.config != nil {
				c.config(&conf)
			}
			if err := nft.New(netlinkKernel(t, conf)).Replace(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			kernel := &recorder{Kernel: netlinkKernel(t, everyConfig(ns))}
			if c.damage != nil {
				c.damage()
			}
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := nft.New(kernel).Replace(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			commits := kernel.take()
			if replaced := len(commits) > 0 && commits[0].Replace; replaced != (c.name != "nothing") {
				t.Errorf("the tables were replaced: %t", replaced)
			}
			if now, err := kernel.Read(t.Context()); err != nil || !now.Sound {
				t.Errorf("sound afterwards: %t, error %v", now.Sound, err)
			}
		})
	}
}

// TestAffinityAndCountersSurviveRestart puts a client into the map of session affinity, as a packet would.
func TestAffinityAndCountersSurviveRestart(t *testing.T) {
	ns := namespace(t)
	all := everything()
	if err := nft.New(netlinkKernel(t, everyConfig(ns))).Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: nft.TableName, Family: nftables.TableFamilyIPv4}
	clients := func() []nftables.SetElement {
		set, err := conn.GetSetByName(table, "affinity")
		if err != nil {
			t.Fatal(err)
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			t.Fatal(err)
		}
		return elements
	}
	set, err := conn.GetSetByName(table, "affinity")
	if err != nil {
		t.Fatal(err)
	}
	client := nftables.SetElement{Key: []byte("\x02\x00\x00\x00\x0a\xf4\x00\x01"), Val: []byte("\x02\x00\x00\x00\x0a\xf4\x00\x02\x1f\x90\x00\x00"), Timeout: time.Hour}
	if err := conn.SetAddElements(set, []nftables.SetElement{client}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	plane := nft.New(netlinkKernel(t, everyConfig(ns)))
	moved := *all.Ports[3].New
	moved.Cluster = slices.Concat(moved.Cluster[1:], port(families[1], 250, 1).Cluster)
	all.Ports[3].New = &moved
	for range 2 { // the restart, and the hourly resync
		if err := plane.Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if n := len(clients()); n != 1 {
			t.Errorf("%d clients are remembered, want 1", n)
		}
	}
}
