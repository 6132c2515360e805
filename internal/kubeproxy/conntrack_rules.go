package kubeproxy

import (
	"net/netip"
	"slices"

	"varco.dev/internal/kernel"
	"varco.dev/internal/service"
)

// tcpLastAck is the last state of a TCP connection that can still carry data (linux/netfilter/nf_conntrack_tcp.h).
const tcpLastAck = 6

// target is what a flow was sent to: a frontend, or a NodePort, then with the unspecified address.
type target struct {
	protocol service.Protocol
	addr     netip.AddrPort
}

// flowRules decides which flows are stale, by the state that the kernel serves.
type flowRules struct {
	drain     bool
	local     func(netip.Addr) bool
	frontends map[target]*service.Port
	nodeAddrs map[netip.Addr]bool
}

func newFlowRules(drain bool, local func(netip.Addr) bool) flowRules {
	return flowRules{drain: drain, local: local, frontends: map[target]*service.Port{}, nodeAddrs: map[netip.Addr]bool{}}
}

// apply takes over changes, or with full the whole state, and adds the reasons they give to look at the flows.
func (r *flowRules) apply(c service.Changes, full bool, why *reasons) {
	before := r.remove(c, full)
	for _, change := range c.Ports {
		if change.New != nil {
			r.open(change.New, before, c, full, why)
			r.lose(change, why)
		}
	}
	for t, p := range before {
		if _, again := r.frontends[t]; !again && p.Key.Protocol != service.TCP {
			why.closed(t, p.Key.Family)
		}
	}
	if r.setNode(c.NodeAddrs) || full {
		why.everything()
	}
}

// setNode takes over where NodePorts are served, and tells whether that is at more addresses than before.
func (r *flowRules) setNode(addrs []netip.Addr) (more bool) {
	more = slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !r.nodeAddrs[a] })
	clear(r.nodeAddrs)
	for _, a := range addrs {
		r.nodeAddrs[a] = true
	}
	return more
}

// remove takes away the frontends of the ports before the change and returns them.
func (r *flowRules) remove(c service.Changes, full bool) (before map[target]*service.Port) {
	if full {
		before = r.frontends
		r.frontends = make(map[target]*service.Port, len(before))
		return before
	}
	before = map[target]*service.Port{}
	for _, change := range c.Ports {
		if change.Old == nil {
			continue
		}
		for _, f := range change.Old.Frontends {
			t := target{change.Old.Key.Protocol, f.Addr}
			before[t] = change.Old
			delete(r.frontends, t)
		}
	}
	return before
}

// open enters the frontends of a port. A frontend that is new has flows that came before it, unless the kernel dropped
// them: it does so for what no Service has of the networks of ClusterIPs.
func (r *flowRules) open(p *service.Port, before map[target]*service.Port, c service.Changes, full bool, why *reasons) {
	for _, f := range p.Frontends {
		t := target{p.Key.Protocol, f.Addr}
		r.frontends[t] = p
		old, had := before[t]
		dropped := f.Kind == service.ClusterIP && slices.ContainsFunc(c.OldCIDRs, func(n netip.Prefix) bool { return n.Contains(f.Addr.Addr()) })
		if !full && (had && old.Key != p.Key || !had && !dropped) {
			why.opened(t, p.Key.Family)
		}
	}
}

// lose finds the endpoints that flows must not go on to any more. Of TCP, a client finds out by itself that nobody answers,
// and TCP endpoints change all the time: with a walk for each, conntrack would cost ten times as much as all the rest. So
// they count with drain only, and then when they are gone: one that is listed may be about to end what it has begun.
func (r *flowRules) lose(c service.Change, why *reasons) {
	if c.Old == nil {
		return
	}
	protocol, lost := c.New.Key.Protocol, func(a netip.AddrPort) { why.lost(c.New.Key, a) }
	if protocol != service.TCP {
		missing(c.Old.Serving, c.New.Serving, lost)
	}
	if protocol == service.SCTP || protocol == service.TCP && r.drain {
		missing(c.Old.Listed, c.New.Listed, lost)
	}
}

// missing tells of each endpoint of old that is not among those of new. Both are sorted.
func missing(old, new []service.Backend, tell func(netip.AddrPort)) {
	for _, b := range old {
		if !has(new, b.Addr) {
			tell(b.Addr)
		}
	}
}

// has tells whether an endpoint is among sorted ones.
func has(all []service.Backend, endpoint netip.AddrPort) bool {
	_, found := slices.BinarySearchFunc(all, endpoint, func(b service.Backend, a netip.AddrPort) int { return b.Addr.Compare(a) })
	return found
}

// scopes returns where flows are to be looked for: with whole, wherever something is served too.
func (r *flowRules) scopes(why reasons) scopes {
	if !why.whole {
		return why.scopes
	}
	out := scopes{}
	for f, protocols := range why.scopes {
		for p := range protocols {
			out.add(f, p)
		}
	}
	for _, p := range r.frontends {
		out.add(p.Key.Family, p.Key.Protocol)
	}
	return out
}

// stale decides whether a flow is to be deleted, so that its next packet is treated as the first of a new one:
//
//   - of UDP, one to a frontend that is not translated to an endpoint that serves. Policies, hints and whether the endpoint
//     terminates do not count: flows that exist may go on (kube-proxy does the same);
//   - of SCTP, the same as long as the association is not established. One that is may go on to any endpoint that is there,
//     as with TCP: a probe that fails for a moment must not end what has a state at both ends;
//   - of UDP and SCTP, one to a frontend that is no more;
//   - of TCP, one that has had no answer yet and came before the frontend was there: its next attempt reaches an endpoint;
//   - of TCP, with drain, one to an endpoint that is gone.
func (r *flowRules) stale(f kernel.Flow, why reasons) bool {
	for _, t := range r.targets(f) {
		if p := r.frontends[t]; p != nil {
			return r.staleAt(p, t, f, why)
		}
		if f.Protocol != service.TCP && f.ReplySource != f.Dest && why.isClosed(t) {
			return true
		}
	}
	return false
}

// staleAt decides about a flow to a port that is served.
func (r *flowRules) staleAt(p *service.Port, t target, f kernel.Flow, why reasons) bool {
	if has(p.Serving, f.ReplySource) {
		return false
	}
	translated, gone := f.ReplySource != f.Dest, !has(p.Listed, f.ReplySource)
	// A frontend that was closed and is served again has flows of the time before too.
	fresh, lost := why.isOpened(t) || why.isClosed(t), translated && why.isLost(p.Key, f.ReplySource)
	switch {
	case !fresh && !lost:
		return false
	case f.Protocol == service.TCP:
		return f.TCPState == kernel.TCPSynSent || r.drain && lost && gone && f.TCPState <= tcpLastAck
	case f.Protocol == service.SCTP:
		return f.HalfOpen() || translated && gone
	}
	return true
}

// targets returns what the flow may have been sent to, the first that is served counts.
func (r *flowRules) targets(f kernel.Flow) []target {
	exact := target{f.Protocol, f.Dest}
	if !r.servesNodePorts(f.Dest.Addr()) {
		return []target{exact}
	}
	return []target{exact, {f.Protocol, netip.AddrPortFrom(everywhere(service.FamilyOf(f.Dest.Addr())), f.Dest.Port())}}
}

// servesNodePorts tells whether NodePorts are served at an address: others may use the same port numbers elsewhere.
func (r *flowRules) servesNodePorts(a netip.Addr) bool {
	return r.nodeAddrs[a] || r.nodeAddrs[everywhere(service.FamilyOf(a))] && !a.IsLoopback() && r.local(a)
}
