package service

import (
	"cmp"
	"net/netip"
	"slices"
)

// wish is what one port of a Service asks for in one family.
type wish struct {
	key       Key
	frontends []Frontend // sorted
}

// wishes returns, for each port and family that a Service has an address in, the frontends it asks for. An address that
// it names twice, say as load balancer and as external IP, counts once, as its best kind. Of two ports with the same
// name and protocol, which the API does not let pass, the first counts.
func wishes(s *Service) []wish {
	out := make([]wish, 0, len(s.Ports)*len(s.ClusterIPs))
	for i, p := range s.Ports {
		if slices.ContainsFunc(s.Ports[:i], func(q ServicePort) bool { return q.Name == p.Name && q.Protocol == p.Protocol }) {
			continue
		}
		for _, family := range families() {
			if fs := frontends(s, p, family); fs != nil {
				out = append(out, wish{Key{Service: s.Name, Port: p.Name, Protocol: p.Protocol, Family: family}, fs})
			}
		}
	}
	return out
}

// frontends returns nil where a Service has no ClusterIP: then it has no part in the family.
func frontends(s *Service, p ServicePort, family Family) []Frontend {
	ip := firstOf(s.ClusterIPs, family)
	if !ip.IsValid() {
		return nil
	}
	room := 1 + int(min(1, p.NodePort)) + len(s.LoadBalancerIPs) + len(s.ExternalIPs)
	fs := make([]Frontend, 0, room) // mostly all is needed, and it is kept
	fs = append(fs, Frontend{ClusterIP, netip.AddrPortFrom(ip, p.Port)})
	if p.NodePort != 0 {
		fs = append(fs, Frontend{NodePort, netip.AddrPortFrom(unspecified(family), p.NodePort)})
	}
	add := func(kind Kind, addrs []netip.Addr) {
		for _, a := range addrs {
			if FamilyOf(a) == family {
				fs = append(fs, Frontend{kind, netip.AddrPortFrom(a, p.Port)})
			}
		}
	}
	add(LoadBalancerIP, s.LoadBalancerIPs)
	add(ExternalIP, s.ExternalIPs)
	return bestOfEach(fs)
}

// bestOfEach leaves each address with its best kind, and sorts. An object has room for tens of thousands of addresses, so
// they are not compared each with each.
func bestOfEach(fs []Frontend) []Frontend {
	slices.SortFunc(fs, func(f, g Frontend) int { return cmp.Or(f.Addr.Compare(g.Addr), cmp.Compare(f.Kind, g.Kind)) })
	fs = slices.CompactFunc(fs, func(f, g Frontend) bool { return f.Addr == g.Addr && f.Kind != NodePort && g.Kind != NodePort })
	slices.SortFunc(fs, Frontend.Compare)
	return fs
}

func firstOf(addrs []netip.Addr, family Family) netip.Addr {
	for _, a := range addrs {
		if FamilyOf(a) == family {
			return a
		}
	}
	return netip.Addr{}
}

func unspecified(f Family) netip.Addr {
	if f == IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
