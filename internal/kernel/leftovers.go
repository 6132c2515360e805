package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveKubeProxyLeftovers removes what kube-proxy leaves in a network namespace when it ends, whatever mode it ran in:
//
//   - nftables: the tables "kube-proxy" of both IP families;
//   - iptables and IPVS: its chains and the jumps to them, of iptables-nft over netlink, of iptables-legacy with that command;
//   - IPVS: all virtual servers, if the interface kube-ipvs0 shows that kube-proxy made them, the interface, and its IP sets.
//
// Everything else stays as and where it is: rules of others, network plugins and the kubelet among them (KUBE-FIREWALL,
// KUBE-MARK-DROP, KUBE-IPTABLES-HINT, KUBE-KUBELET-CANARY), and a chain of kube-proxy that a rule of another refers to.
// Such a chain is an error, as is what the kernel refuses or what takes a command that is not there; the rest is removed
// nevertheless.
//
// NetNS is the descriptor of the namespace, 0 for that of the calling thread. It needs CAP_NET_ADMIN. What was removed is
// told in a line for each place, for the log. It may be repeated: where nothing is left, it does nothing.
func RemoveKubeProxyLeftovers(ctx context.Context, netNS int) (removed []string, err error) {
	err = inNamespace(netNS, func() error {
		// Rules before what they refer to: IP sets cannot be removed from under them.
		steps := []func(context.Context) ([]string, error){removeNFTLeftovers, removeLegacyLeftovers, removeIPVSLeftovers}
		var errs []error
		for _, step := range steps {
			if err := ctx.Err(); err != nil {
				return errors.Join(append(errs, err)...)
			}
			lines, err := step(ctx)
			removed, errs = append(removed, lines...), append(errs, err)
		}
		return errors.Join(errs...)
	})
	return removed, err
}

// inNamespace runs fn on a thread of the namespace. Sockets and commands of fn are in the namespace, its goroutines are not.
func inNamespace(netNS int, fn func() error) error {
	if netNS == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(netNS, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// ownTables are the iptables tables that kube-proxy writes to.
var ownTables = []string{"nat", "filter", "mangle"}

// ownChains are the chains of kube-proxy's iptables and IPVS modes, by table.
var ownChains = map[string][]string{
	"nat": {
		"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY",
		"KUBE-NODE-PORT", "KUBE-LOAD-BALANCER",
	},
	"filter": {
		"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL", "KUBE-PROXY-CANARY",
		"KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
	},
	"mangle": {"KUBE-PROXY-CANARY"},
}

// ownPrefixes begin the names of the chains of one Service or endpoint, in table nat. KUBE-XLB- is that of Kubernetes 1.23
// and before.
var ownPrefixes = []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"}

// ownJumps are the rules of kube-proxy in the chains that are not its own: "table from to". Those of its releases differ
// in more than that, which does not matter.
var ownJumps = []string{
	"nat OUTPUT KUBE-SERVICES",
	"nat PREROUTING KUBE-SERVICES",
	"nat POSTROUTING KUBE-POSTROUTING",
	"filter INPUT KUBE-EXTERNAL-SERVICES",
	"filter FORWARD KUBE-EXTERNAL-SERVICES",
	"filter INPUT KUBE-NODEPORTS",
	"filter INPUT KUBE-SERVICES", // Kubernetes 1.12 and before
	"filter FORWARD KUBE-SERVICES",
	"filter OUTPUT KUBE-SERVICES",
	"filter FORWARD KUBE-FORWARD",
	"filter INPUT KUBE-PROXY-FIREWALL",
	"filter OUTPUT KUBE-PROXY-FIREWALL",
	"filter FORWARD KUBE-PROXY-FIREWALL",
	"filter INPUT KUBE-NODE-PORT",
	"filter INPUT KUBE-IPVS-FILTER",
	"filter OUTPUT KUBE-IPVS-OUT-FILTER",
}

func isOwnChain(table, name string) bool {
	hasPrefix := func(p string) bool { return strings.HasPrefix(name, p) }
	return slices.Contains(ownChains[table], name) || table == "nat" && slices.ContainsFunc(ownPrefixes, hasPrefix)
}

// jump is a rule that leads from one chain to another.
type jump struct {
	from, to string
	handle   uint64 // nftables: names the rule
	text     string // iptables: the rule without the chain that it is in
}

// chainTable is what a table of iptables has, as far as it matters here.
type chainTable struct {
	name   string
	chains []string
	jumps  []jump
}

// removal is what to remove from a table, and what of kube-proxy stays for the sake of others.
type removal struct {
	jumps  []jump
	chains []string          // to be emptied first, because they refer to each other
	kept   map[string]string // chain: the chain with a rule that leads to it
}

// plan finds what is kube-proxy's.
func (t chainTable) plan() removal {
	r := removal{kept: map[string]string{}}
	next := map[string][]string{} // chain: those of kube-proxy that its rules lead to
	for _, j := range t.jumps {
		from, to := isOwnChain(t.name, j.from), isOwnChain(t.name, j.to)
		switch {
		case from && to:
			next[j.from] = append(next[j.from], j.to)
		case to && slices.Contains(ownJumps, strings.Join([]string{t.name, j.from, j.to}, " ")):
			r.jumps = append(r.jumps, j)
		case to:
			r.kept[j.to] = j.from
		}
	}
	for pending := slices.Collect(maps.Keys(r.kept)); len(pending) > 0; {
		from := pending[0]
		pending = pending[1:]
		for _, to := range next[from] {
			if _, seen := r.kept[to]; !seen {
				r.kept[to] = from
				pending = append(pending, to)
			}
		}
	}
	for _, c := range t.chains {
		if _, kept := r.kept[c]; !kept && isOwnChain(t.name, c) {
			r.chains = append(r.chains, c)
		}
	}
	return r
}

func (r removal) empty() bool { return len(r.jumps) == 0 && len(r.chains) == 0 }

// line tells what was removed from a place such as "iptables-nft ip nat".
func (r removal) line(place string) string {
	return fmt.Sprintf("%s: %d chains, %d rules that led to them", place, len(r.chains), len(r.jumps))
}

// err says what stays of kube-proxy.
func (r removal) err(place string) error {
	if len(r.kept) == 0 {
		return nil
	}
	var list []string
	for _, c := range slices.Sorted(maps.Keys(r.kept)) {
		list = append(list, fmt.Sprintf("%s (used by a rule of %s)", c, r.kept[c]))
	}
	const most = 5
	if more := len(list) - most; more > 0 {
		list = append(list[:most], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("%s: chains of kube-proxy stay, because rules of others use them: %s", place, strings.Join(list, ", "))
}
