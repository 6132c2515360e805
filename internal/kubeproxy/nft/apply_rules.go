package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// Names of the chains that are not base chains. Base chains are called after their type and hook, and sit at the
// priorities of upstream's kube-proxy, which network policy engines rely on.
const (
	chainServices     = "services"
	chainShortcuts    = "shortcuts"
	chainNodeShorts   = "nodeport-shortcuts"
	chainEndpoints    = "endpoints-check"
	chainNodePorts    = "nodeport-endpoints-check"
	chainClusterIPs   = "cluster-ips-check"
	chainFirewall     = "firewall"
	chainSources      = "source-ranges"
	chainReject       = "reject-chain"
	chainMarkCluster  = "mark-cluster-ips"
	chainMark         = "mark-for-masquerade"
	chainMasquerading = "masquerading"
)

// Comments of the rules that nft cannot print in full.
const (
	commentServices      = "class of daddr . l4proto . dport in @services"
	commentNodePorts     = "class of l4proto . dport in @nodeports"
	commentShortcuts     = "class of daddr . l4proto . dport in @shortcuts"
	commentNodeShorts    = "class of l4proto . dport in @nodeport-shortcuts"
	commentNoEndpoints   = "refusal of daddr . l4proto . dport in @no-endpoints"
	commentNoEndNodePort = "refusal of l4proto . dport in @no-endpoint-nodeports"
)

// addFixed adds the sets, chains and rules that every table has.
func (t *table) addFixed() {
	for _, s := range t.sets {
		t.note(t.conn.AddSet(s, nil))
	}
	for _, s := range []*nftables.Set{t.verdicts, t.shortcuts, t.affinity} {
		t.note(t.conn.AddSet(s, nil))
	}
	for _, name := range []string{
		chainServices, chainShortcuts, chainNodeShorts, chainEndpoints, chainNodePorts, chainClusterIPs, chainFirewall, chainSources,
		chainReject, chainMarkCluster, chainMark, chainMasquerading,
	} {
		t.chain(name)
	}
	t.rule(chainReject, reset())
	t.rule(chainReject, t.unreachable())
	t.addServices()
	t.addShortcuts()
	t.addFirewall()
	t.addFilters()
	t.addCounters()
	t.addMasquerading()
}

// addServices sends new connections to the chain of their class. A frontend without backends has none: its packets go on
// unchanged, to be refused by the filter chains.
func (t *table) addServices() {
	t.base("nat-prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	t.base("nat-output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	t.rule("nat-prerouting", jump(chainServices))
	t.rule("nat-output", jump(chainServices))
	t.commented(chainServices, commentServices, t.key(Services), t.toClass(Services))
	t.commented(chainServices, commentNodePorts, t.atNodeAddr(), t.key(NodePorts), t.toClass(NodePorts))
	// The type of the address is asked for last, because it is a look-up in the routing tables.
	t.commented(chainServices, commentNodePorts, t.key(NodePorts), t.find(NodePorts), t.atLocalAddr(), t.key(NodePorts), t.toClass(NodePorts))
}

// find goes on only if there is such a frontend.
func (t *table) find(s Set) []expr.Any { return lookup(t.sets[s], regKey, regValue) }

// addShortcuts adds what the connections of this node to a frontend with policy Local meet first: they go where policy
// Cluster would send them, as if they had left the node and come back through the load balancer. Those of pods keep their
// address, those of the node itself must not, because the backend may be elsewhere.
func (t *table) addShortcuts() {
	for _, c := range []struct {
		chain, comment string
		set            Set
	}{{chainShortcuts, commentShortcuts, Shortcuts}, {chainNodeShorts, commentNodeShorts, NodePortShortcuts}} {
		if fromPods := t.fromPods(true); fromPods != nil {
			t.commented(c.chain, c.comment, fromPods, t.key(c.set), t.toClass(c.set))
		}
		t.commented(c.chain, c.comment, fromThisNode(), t.setMark(), t.key(c.set), t.toClass(c.set))
	}
}

// fromPods goes on only if the packet is from a pod of this node, or only if it is not. It is nil if nobody knows.
func (t *table) fromPods(want bool) []expr.Any {
	d, op := t.config.Detector, expr.CmpOpEq
	if !want {
		op = expr.CmpOpNeq
	}
	switch {
	case d.Bridge != "":
		return interfaceName(op, d.Bridge, false)
	case d.InterfacePrefix != "":
		return interfaceName(op, d.InterfacePrefix, true)
	}
	for _, cidr := range d.CIDRs {
		if cidr.Addr().Is4() != (t.table.Family == nftables.TableFamilyIPv4) {
			continue
		}
		if want {
			return t.within(cidr, true)
		}
		return t.notIn(cidr, true)
	}
	return nil
}

// addMasquerading gives packets a source address of the node, where the answer would otherwise not come back this way:
// those that were marked before NAT, and those that a backend sends to itself through a Service.
func (t *table) addMasquerading() {
	t.base("nat-postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	t.rule("nat-postrouting", jump(chainMasquerading))
	t.rule(chainMasquerading, t.ifMarked(), t.clearMark(), masquerade())
	t.rule(chainMasquerading, statusDNAT(), t.hairpinKey(), in(t.sets[Hairpins]), masquerade())
	t.rule(chainMark, t.setMark())
	if t.config.MasqueradeAll {
		t.rule(chainMarkCluster, t.setMark())
	} else if notFromPods := t.fromPods(false); notFromPods != nil {
		t.rule(chainMarkCluster, notFromPods, t.setMark())
	}
}

// chain adds a regular chain.
func (t *table) chain(name string) {
	t.chains[name] = t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name})
}

// base adds a chain that the packets of a hook pass.
func (t *table) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, p *nftables.ChainPriority) {
	t.chains[name] = t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name, Type: kind, Hooknum: hook, Priority: p})
}

// rule appends a rule made of statements to a chain.
func (t *table) rule(chain string, statements ...[]expr.Any) {
	t.commented(chain, "", statements...)
}

// commented appends a rule with a comment for people who list it.
func (t *table) commented(chain, comment string, statements ...[]expr.Any) {
	c := t.chains[chain]
	if c == nil {
		t.note(fmt.Errorf("rule for chain %q, which was not added", chain))
		return
	}
	var exprs []expr.Any
	for _, s := range statements {
		exprs = append(exprs, s...)
	}
	rule := &nftables.Rule{Table: t.table, Chain: c, Exprs: exprs}
	if comment != "" {
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	}
	t.conn.AddRule(rule)
}
