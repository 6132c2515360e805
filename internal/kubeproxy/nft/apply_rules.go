package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"varco.dev/internal/service"
)

// Names of the chains that are not base chains. Base chains are called after their type and hook, and sit at the
// priorities of upstream's kube-proxy, which network policy engines rely on.
const (
	chainServices     = "services"
	chainEndpoints    = "endpoints-check"
	chainNodePorts    = "nodeport-endpoints-check"
	chainReject       = "reject-chain"
	chainMarkCluster  = "mark-cluster-ips"
	chainMark         = "mark-for-masquerade"
	chainMasquerading = "masquerading"
)

// Comments of the rules that nft cannot print in full.
const (
	commentServices  = "class of daddr . l4proto . dport in @services"
	commentNodePorts = "class of l4proto . dport in @nodeports"
)

// addFixed adds the sets, chains and rules that every table has.
func (t *table) addFixed() {
	for _, s := range t.sets {
		t.note(t.conn.AddSet(s, nil))
	}
	t.note(t.conn.AddSet(t.verdicts, nil))
	for _, name := range []string{chainServices, chainEndpoints, chainNodePorts, chainReject, chainMarkCluster, chainMark, chainMasquerading} {
		t.chain(name)
	}
	t.rule(chainReject, reset())
	t.rule(chainReject, t.unreachable())
	var rejects []nftables.SetElement
	for _, path := range []Path{PathCluster, PathExternal, PathNodePort} {
		for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
			rejects = append(rejects, verdictElement(ClassOf(path, p, 0), chainReject))
		}
	}
	t.note(t.conn.AddSet(t.rejects, rejects))
	t.addServices()
	t.addFilters()
	t.addMasquerading()
}

// addServices sends new connections to the chain of their class. A class without backends has none: its packets go on
// unchanged, to be rejected by the filter chains.
func (t *table) addServices() {
	t.base("nat-prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	t.base("nat-output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	t.rule("nat-prerouting", jump(chainServices))
	t.rule("nat-output", jump(chainServices))
	t.commented(chainServices, commentServices, t.serviceKey(), get(t.sets[Services], regClass), vmap(t.verdicts))
	t.commented(chainServices, commentNodePorts, t.nodePortKey(), get(t.sets[NodePorts], regClass), vmap(t.verdicts))
}

// addFilters rejects new connections to frontends without backends, in the hooks in which upstream does: network policy
// engines count on rejects coming no earlier.
func (t *table) addFilters() {
	for name, hook := range map[string]*nftables.ChainHook{
		"filter-input":   nftables.ChainHookInput,
		"filter-forward": nftables.ChainHookForward,
		"filter-output":  nftables.ChainHookOutput,
	} {
		t.base(name, nftables.ChainTypeFilter, hook, nftables.ChainPriorityFilter)
		t.rule(name, stateNew(), jump(chainEndpoints))
	}
	// A NodePort is an address of the node itself, so its packets are never forwarded; those that the node sends to
	// itself pass the input hook too.
	t.rule("filter-input", stateNew(), jump(chainNodePorts))
	t.commented(chainEndpoints, commentServices, t.serviceKey(), get(t.sets[Services], regClass), vmap(t.rejects))
	t.commented(chainNodePorts, commentNodePorts, t.nodePortKey(), get(t.sets[NodePorts], regClass), vmap(t.rejects))
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
		return
	}
	for _, cidr := range t.config.ClusterCIDRs {
		if cidr.Addr().Is4() == (t.table.Family == nftables.TableFamilyIPv4) {
			t.rule(chainMarkCluster, t.sourceNotIn(cidr), t.setMark())
			return // the first of each family counts, as upstream
		}
	}
}

// addClass adds the chain of a class: it marks what is to be masqueraded, draws a slot, and sends the connection to the
// backend in it.
//
// Each look-up sees the elements of its own moment. Where the number of backends shrinks between the first and the last, a
// slot may be gone that was drawn: the first one then serves, which is there as long as any is.
func (t *table) addClass(c Class) {
	name, mark, key, set := c.String(), chainMark, t.serviceKey(), t.sets[Services]
	switch c.Path() {
	case PathCluster:
		mark = chainMarkCluster
	case PathNodePort:
		key, set = t.nodePortKey(), t.sets[NodePorts]
	}
	t.chain(name)
	t.rule(name, jump(mark))
	for _, n := range []int{c.Backends(), 1} {
		comment := fmt.Sprintf("id of the Service port, and a random slot below %d", n)
		t.commented(name, comment, protocol(c.Protocol()), randomSlot(n), key, get(set, regID), t.toBackend())
	}
	t.note(t.conn.SetAddElements(t.verdicts, []nftables.SetElement{verdictElement(c, name)}))
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

func verdictElement(c Class, chain string) nftables.SetElement {
	return nftables.SetElement{
		Key:         number(uint32(c)),
		VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain},
	}
}
