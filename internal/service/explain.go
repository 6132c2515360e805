package service

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Source tells where a client is. It matters where a policy is Local: what runs on the node may use all endpoints of a
// frontend that is meant for clients outside, as if it had gone out and come back in.
type Source string

// The sources.
const (
	SourceAny  Source = ""     // not said: as SourceElse
	SourcePod  Source = "pod"  // a pod on this node, as the data plane detects them
	SourceNode Source = "node" // the node itself
	SourceElse Source = "else" // any other machine or pod
)

// Question asks what becomes of a new connection.
type Question struct {
	Protocol Protocol
	// To is the destination. A NodePort is asked for at an address of the node, or at the unspecified address of a family.
	To   netip.AddrPort
	From Source
}

// Outcome is what becomes of a new connection.
type Outcome string

// The outcomes.
const (
	Forward Outcome = "forward" // it goes to one of the Backends
	Reject  Outcome = "reject"  // the client is told that nobody answers: there is no usable endpoint at all
	Drop    Outcome = "drop"    // the client hears nothing: there are endpoints, but the policy leaves none
)

// Explanation is what becomes of a new connection, and why.
type Explanation struct {
	Service  Name     `json:"service"`
	Port     string   `json:"port"` // its name, may be empty
	Protocol Protocol `json:"protocol"`
	Family   Family   `json:"family"`
	Frontend Frontend `json:"frontend"`
	Outcome  Outcome  `json:"outcome"`
	// Policy is that of the frontend. Shortcut tells that it is Local and yet all endpoints are used, because of the source.
	Policy   Policy   `json:"policy"`
	Shortcut bool     `json:"shortcut,omitempty"`
	Topology Topology `json:"topology,omitempty"` // whether topology hints chose among the endpoints
	// Affinity is how long a client keeps its backend; 0: not at all. In JSON it is in nanoseconds.
	Affinity time.Duration  `json:"affinity,omitempty"`
	Balance  Balance        `json:"balance"`
	Sources  []netip.Prefix `json:"sources,omitempty"`  // the only networks that may connect; empty: all. Nil but for load-balancer IPs
	Backends []Chosen       `json:"backends,omitempty"` // where it may go
	LeftOut  []LeftOut      `json:"leftOut,omitempty"`  // every other endpoint of the Service
	Claims   []Claim        `json:"claims"`             // who asks for the frontend, the one that has it first
}

// Chosen is an endpoint that takes new connections from here.
type Chosen struct {
	Addr   netip.AddrPort `json:"addr"`
	Node   string         `json:"node,omitempty"`
	Zone   string         `json:"zone,omitempty"`
	Local  bool           `json:"local,omitempty"`
	Weight uint16         `json:"weight"` // relative to the others
}

// LeftOut is an endpoint that takes no new connections from here.
type LeftOut struct {
	Slice  Name       `json:"slice"`
	Addr   netip.Addr `json:"addr"`
	Port   uint16     `json:"port,omitempty"` // 0: the slice has no port of that name and protocol
	Node   string     `json:"node,omitempty"`
	Zone   string     `json:"zone,omitempty"`
	Reason Reason     `json:"reason"`
}

// Claim is the wish of a Service port for an address and port.
type Claim struct {
	Service Name      `json:"service"`
	Port    string    `json:"port"`
	Kind    Kind      `json:"kind"`
	Created time.Time `json:"created"` // to the second
}

// Explain tells what becomes of a new connection, and why. ok is false if no Service has an address and port like that.
// It says what should be, as of the objects that the table holds now, not what the kernel does. Whether a NodePort is
// served at that address is for Changes.NodeAddrs to say: here, any address stands for the node.
func (t *Table) Explain(q Question) (x Explanation, ok bool) {
	at, have := t.asked(q)
	if len(have) == 0 {
		return Explanation{}, false
	}
	key := have[0].key()
	s := have[0].of.service
	i := slices.IndexFunc(s.Ports, func(p ServicePort) bool { return p.Name == key.Port && p.Protocol == key.Protocol })
	p := t.derive(s, wish{key, frontends(s, s.Ports[i], key.Family)}, have[0].of.slices)
	x = Explanation{
		Service: key.Service, Port: key.Port, Protocol: key.Protocol, Family: key.Family,
		Frontend: Frontend{Kind: have[0].kind, Addr: at.addr}, Policy: p.PolicyOf(have[0].kind),
		Affinity: p.Affinity, Balance: p.Balance,
	}
	if x.Frontend.Kind == LoadBalancerIP {
		x.Sources = p.Sources
	}
	for _, c := range have {
		x.Claims = append(x.Claims, Claim{c.of.name, c.port, c.kind, time.Unix(c.created, 0).UTC()})
	}
	x.Shortcut = x.Policy == PolicyLocal && x.Frontend.Kind != ClusterIP && (q.From == SourcePod || q.From == SourceNode)
	t.explainEndpoints(&x, have[0].of, key)
	x.Outcome = outcome(len(x.Backends), p.HasEndpoints)
	return x, true
}

// asked finds the place that a question is about, and who claims it: first as an address, then as a NodePort.
func (t *Table) asked(q Question) (place, []claim) {
	at := place{addr: q.To, protocol: q.Protocol}
	if have := t.claims[at]; len(have) > 0 {
		return at, have
	}
	at = place{addr: netip.AddrPortFrom(unspecified(FamilyOf(q.To.Addr())), q.To.Port()), protocol: q.Protocol}
	return at, t.claims[at]
}

func outcome(backends int, anywhere bool) Outcome {
	switch {
	case backends > 0:
		return Forward
	case anywhere:
		return Drop
	}
	return Reject
}

// explainEndpoints tells for each listed endpoint of a Service whether it is used, and if not, why.
func (t *Table) explainEndpoints(x *Explanation, e *entry, key Key) {
	cs := candidates(key, e.slices)
	ch := newChoice(t.node, t.attributes.Zone, cs)
	why := ch.cluster
	if x.Policy == PolicyLocal && !x.Shortcut {
		why = ch.local
	} else {
		x.Topology = ch.topology
	}
	chosen := weigh(t.backendsOf(e.service, cs, func(c candidate) bool { return why(c) == usedAsABackend }))
	for _, s := range e.slices {
		for i := range s.Endpoints {
			t.explainEndpoint(x, s, &s.Endpoints[i], cs, chosen, why)
		}
	}
	slices.SortFunc(x.Backends, func(a, b Chosen) int { return a.Addr.Compare(b.Addr) })
	x.Backends = slices.Compact(x.Backends) // a slice may list a port twice
	slices.SortFunc(x.LeftOut, func(a, b LeftOut) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), a.Slice.Compare(b.Slice), cmp.Compare(a.Reason, b.Reason))
	})
}

func (t *Table) explainEndpoint(x *Explanation, s *Slice, e *Endpoint, cs []candidate, chosen []Backend, why func(candidate) Reason) {
	out := LeftOut{Slice: s.Name, Addr: e.Addr, Node: e.Node, Zone: e.Zone, Reason: NoSuchPort}
	listed := false
	for _, p := range s.Ports {
		if p.Name != x.Port || p.Protocol != x.Protocol {
			continue
		}
		listed = true
		out.Port = p.Port
		if FamilyOf(e.Addr) != x.Family {
			out.Reason = OtherFamily
			x.LeftOut = append(x.LeftOut, out)
			continue
		}
		c := candidate{netip.AddrPortFrom(e.Addr, p.Port), e}
		i, _ := slices.BinarySearchFunc(cs, c.addr, func(d candidate, a netip.AddrPort) int { return d.addr.Compare(a) })
		j, takes := slices.BinarySearchFunc(chosen, c.addr, func(b Backend, a netip.AddrPort) int { return b.Addr.Compare(a) })
		switch out.Reason = why(c); {
		case cs[i].Endpoint != e:
			out.Reason = Duplicate
		case out.Reason == usedAsABackend && !takes:
			out.Reason = NoWeight
		case out.Reason == usedAsABackend:
			x.Backends = append(x.Backends, Chosen{c.addr, e.Node, e.Zone, chosen[j].Local, chosen[j].Weight})
			continue
		}
		x.LeftOut = append(x.LeftOut, out)
	}
	if !listed {
		x.LeftOut = append(x.LeftOut, out)
	}
}
