package service

import (
	"net/netip"
	"slices"
)

// derive builds the Port of a wish from the claims of all Services and its own slices.
func (t *Table) derive(s *Service, w wish, of []*Slice) *Port {
	p := &Port{Key: w.key, Internal: s.Internal, External: s.External, Affinity: s.Affinity, Balance: s.Balance}
	p.Frontends, p.Lost = t.settle(w)
	p.Sources = t.sources(s, w)
	t.choose(p, s, candidates(w.key, of))
	return p
}

// settle tells apart which frontends of a wish are granted and which another Service has.
func (t *Table) settle(w wish) (granted []Frontend, lost []Loss) {
	for _, f := range w.frontends {
		if c, ok := t.claims.winner(place{f.Addr, w.key.Protocol}); ok && c.key() != w.key {
			lost = append(lost, Loss{Frontend: f, Winner: c.key()})
		}
	}
	if lost == nil {
		return w.frontends, nil
	}
	next := 0 // both are sorted
	for _, f := range w.frontends {
		if next < len(lost) && lost[next].Frontend == f {
			next++
			continue
		}
		granted = append(granted, f)
	}
	return granted, lost
}

// choose fills the backends of a Port.
//
// Policy Cluster is used by more than its own frontends: where external clients are kept to local endpoints, those on
// this node are not (upstream's UsesClusterEndpoints).
func (t *Table) choose(p *Port, s *Service, cs []candidate) {
	external := slices.ContainsFunc(p.Frontends, func(f Frontend) bool { return f.Kind != ClusterIP })
	ch := newChoice(t.node, t.attributes.Zone, cs)
	p.HasEndpoints = ch.any()
	if p.Internal == PolicyCluster || external {
		p.Cluster = weigh(t.backendsOf(s, cs, func(c candidate) bool { return ch.cluster(c) == usedAsABackend }))
	}
	if p.Internal == PolicyLocal || p.External == PolicyLocal && external {
		p.Local = weigh(t.backendsOf(s, cs, func(c candidate) bool { return ch.local(c) == usedAsABackend }))
	}
	p.Serving = t.serving(s, cs, p.Cluster)
	if p.Listed = p.Serving; len(cs) > len(p.Serving) {
		p.Listed = noWeights(t.backendsOf(s, cs, func(candidate) bool { return true }))
	}
}

// serving returns the endpoints that may keep the flows they have. Upstream goes by the condition serving alone
// (pkg/proxy/conntrack); here those that are ready count too, because they are given new flows: a Service that publishes
// addresses that are not ready has endpoints that are ready and not serving.
func (t *Table) serving(s *Service, cs []candidate, cluster []Backend) []Backend {
	serves := func(c candidate) bool { return c.Serving || c.Ready }
	same := 0
	for _, c := range cs {
		if !serves(c) {
			continue
		}
		if same < len(cluster) && cluster[same].Addr == c.addr {
			same++
			continue
		}
		return noWeights(t.backendsOf(s, cs, serves))
	}
	return cluster[:same:same]
}

// noWeights has all backends count the same: weights do not matter for flows that exist.
func noWeights(bs []Backend) []Backend {
	for i := range bs {
		bs[i].Weight = 1
	}
	return bs
}

// sources returns the networks that may reach the load-balancer IPs of a wish, sorted; nil means all. As upstream, a
// Service that names none of this family, or all of it, is open; and where the node itself is let in, so are the
// load-balancer IPs: a node that holds one as an address of its own connects to it from it.
func (t *Table) sources(s *Service, w wish) []netip.Prefix {
	vips := addrsOf(w, LoadBalancerIP)
	node := firstOf(t.attributes.Addrs, w.key.Family)
	var out []netip.Prefix
	letsNode := false
	for _, p := range s.Sources {
		if FamilyOf(p.Addr()) != w.key.Family {
			continue
		}
		if p.Bits() == 0 {
			return nil
		}
		out = append(out, p.Masked())
		letsNode = letsNode || p.Contains(node)
	}
	if len(vips) == 0 || len(out) == 0 {
		return nil
	}
	if letsNode {
		for _, a := range vips {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

func addrsOf(w wish, kind Kind) (out []netip.Addr) {
	for _, f := range w.frontends {
		if f.Kind == kind {
			out = append(out, f.Addr.Addr())
		}
	}
	return out
}

// healthCheck returns what a Service asks load balancers to be told, or nil.
func (t *Table) healthCheck(s *Service, of []*Slice) *HealthCheck {
	if s == nil || s.HealthCheckPort == 0 {
		return nil
	}
	h := &HealthCheck{Service: s.Name, Port: s.HealthCheckPort}
	for i, family := range families() {
		h.Families[i] = firstOf(s.ClusterIPs, family).IsValid()
		h.Local[i] = t.localReady(s.Name, family, of)
	}
	return h
}

// localReady counts the addresses on this node with a ready endpoint. As upstream, endpoints of all ports that the slices
// have count, and an address counts once.
func (t *Table) localReady(name Name, family Family, of []*Slice) int {
	ports, addrs := map[Key]bool{}, map[netip.Addr]bool{}
	for _, s := range of {
		for _, p := range s.Ports {
			ports[Key{Service: name, Port: p.Name, Protocol: p.Protocol, Family: family}] = true
		}
	}
	for key := range ports {
		for _, c := range candidates(key, of) {
			if c.Ready && c.local(t.node) {
				addrs[c.Addr] = true
			}
		}
	}
	return len(addrs)
}
