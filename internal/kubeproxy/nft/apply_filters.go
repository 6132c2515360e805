package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// priorityFirewall is that of the chains that see packets before NAT, as upstream.
const priorityFirewall = -110

// addFirewall adds what sees new connections before NAT: the source ranges of load-balancer IPs, and the guard of the
// loopback network.
func (t *table) addFirewall() {
	early := nftables.ChainPriorityRef(priorityFirewall)
	t.base("firewall-prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, early)
	t.base("firewall-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, early)
	if loopbackNet := t.loopback(); t.family == service.IPv4 {
		// Where NodePorts are served at 127.0.0.1, the kernel is told to route that network (CVE-2020-8558). Nothing takes that
		// back, so the guard does not depend on it, as kubelet's own does not.
		// Answers to what the node has begun from there pass: rules of others may have sent that beyond the node.
		t.rule("firewall-prerouting", t.within(loopbackNet, false), interfaceName(expr.CmpOpNeq, "lo", false), stateBegins(), drop())
	}
	t.rule("firewall-prerouting", stateNew(), jump(chainFirewall))
	t.rule("firewall-output", stateNew(), jump(chainFirewall))
	t.rule(chainFirewall, t.key(Services), in(t.sets[Firewalled]), jump(chainSources))
	t.rule(chainFirewall, t.key(Services), in(t.sets[Firewalled]), drop())
}

// addLength adds the rule for source ranges of one length: what is in one of them goes on to the next chain of the hook.
func (t *table) addLength(l SourceLength) {
	proto := regKey + t.addrRegs()
	port, bits := proto+1, proto+2
	// The length gets into its register by the way that a slot does, see draw: a constant cannot be part of a key.
	length := slices.Concat(disguise(bits), disguise(regSpare),
		[]expr.Any{&expr.Immediate{Register: regDraw, Data: number(uint32(l.Bits))}}, copyRegs(regSpare, port, 2))
	t.chain(chainSources)
	t.rule(chainSources, length, t.key(Services), t.masked(bits+1, l.Bits, true), in(t.sets[Sources]), accept())
}

// addFilters refuses new connections to frontends without backends, in the hooks in which upstream does: network policy
// engines count on rejects coming no earlier.
func (t *table) addFilters() {
	t.addRefusals()
	for _, c := range []struct {
		name string
		hook *nftables.ChainHook
	}{
		{"filter-input", nftables.ChainHookInput},
		{"filter-forward", nftables.ChainHookForward},
		{"filter-output", nftables.ChainHookOutput},
	} {
		t.base(c.name, nftables.ChainTypeFilter, c.hook, nftables.ChainPriorityFilter)
		t.rule(c.name, stateNew(), jump(chainEndpoints))
	}
	// A NodePort is an address of the node itself, so its packets are never forwarded; those that the node sends to
	// itself pass the input hook too. A ClusterIP is none.
	t.rule("filter-input", stateNew(), jump(chainNodePorts))
	t.rule("filter-forward", stateNew(), jump(chainClusterIPs))
	t.rule("filter-output", stateNew(), jump(chainClusterIPs))
	t.commented(chainEndpoints, commentNoEndpoints, t.key(NoEndpoints), t.refuse(NoEndpoints))
	t.commented(chainNodePorts, commentNoEndNodePort, t.atNodeAddr(), t.key(NoEndpointNodePorts), t.refuse(NoEndpointNodePorts))
	t.commented(chainNodePorts, commentNoEndNodePort, t.key(NoEndpointNodePorts), t.find(NoEndpointNodePorts), t.atLocalAddr(),
		t.key(NoEndpointNodePorts), t.refuse(NoEndpointNodePorts))
	// What still goes to the address of a Service, or to one that a Service might have, is meant for nobody.
	t.rule(chainClusterIPs, t.loadAddr(regKey, false), in(t.sets[ClusterIPs]), jump(chainReject))
	t.rule(chainClusterIPs, t.loadAddr(regKey, false), in(t.sets[ServiceCIDRs]), drop())
}

func (t *table) addRefusals() {
	reject := &expr.Verdict{Kind: expr.VerdictGoto, Chain: chainReject}
	local := &expr.Verdict{Kind: expr.VerdictDrop}
	if t.config.LocalReject {
		local = reject
	}
	t.note(t.conn.AddSet(t.refusals, []nftables.SetElement{
		{Key: number(uint32(RefuseEmpty)), VerdictData: reject},
		{Key: number(uint32(RefuseLocal)), VerdictData: local},
	}))
}

// addCounters counts the packets of Services, after NAT, by the destination that their connection began with. Those that
// the node sends to itself are counted on their way out.
func (t *table) addCounters() {
	if t.config.Counters < CountAll {
		return
	}
	t.base("count-prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityFilter)
	t.base("count-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	notLo := interfaceName(expr.CmpOpNeq, "lo", false)
	for _, s := range []Set{Traffic, NodePortTraffic} {
		t.commented("count-prerouting", commentCount, statusDNAT(), notLo, t.inOriginal(s), accept())
		t.commented("count-output", commentCount, statusDNAT(), t.inOriginal(s), accept())
	}
}

// commentCount is about rules that nft prints with the present address in the place of the original one.
const commentCount = "original daddr . proto-dst"

// inOriginal goes on only if the packet's destination, as it was before NAT, is an element of the set.
//
// nft does not know how long an original address is, nor of what type a port, and aborts where they are part of a key. So
// the key is made elsewhere, and copied by pieces that begin in the middle of something: to nft, the packet's own address
// and port stand there.
func (t *table) inOriginal(s Set) []expr.Any {
	const key, made = regKey + 1, unix.NFT_REG32_09
	reg, e := uint32(made), slices.Concat(t.keyAt(key, s), disguise(made-1), disguise(made+3))
	if s.key()[0] == addr {
		e = append(e, &expr.Ct{Key: expr.CtKeyDST, Register: reg})
		reg += t.addrRegs()
	}
	e = append(e, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, &expr.Ct{Key: expr.CtKeyPROTODST, Register: reg + 1})
	e = append(e, t.copyHidden(made-1, key-1, int(reg+2-(made-1)))...)
	return append(e, &expr.Lookup{SourceRegister: key, SetName: t.sets[s].Name, SetID: t.sets[s].ID})
}

func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }
func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
