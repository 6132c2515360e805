package service

import (
	"net/netip"
	"slices"
)

// wishes returns, for each port and family that a Service has an address in, the frontends it asks for, sorted. An
// address that it names twice, say as load balancer and as external IP, counts once, as its best kind.
func wishes(s *Service) map[Key][]Frontend {
	out := map[Key][]Frontend{}
	for _, p := range s.Ports {
		for _, family := range []Family{IPv4, IPv6} {
			ip := firstOf(s.ClusterIPs, family)
			if !ip.IsValid() {
				continue // a Service has no part in a family that it has no ClusterIP of
			}
			key := Key{Service: s.Name, Port: p.Name, Protocol: p.Protocol, Family: family}
			out[key] = frontends(s, p, ip)
		}
	}
	return out
}

func frontends(s *Service, p ServicePort, clusterIP netip.Addr) []Frontend {
	fs := []Frontend{{ClusterIP, netip.AddrPortFrom(clusterIP, p.Port)}}
	if p.NodePort != 0 {
		fs = append(fs, Frontend{NodePort, netip.AddrPortFrom(unspecified(clusterIP), p.NodePort)})
	}
	add := func(kind Kind, addrs []netip.Addr) {
		for _, a := range addrs {
			at := netip.AddrPortFrom(a, p.Port)
			named := slices.ContainsFunc(fs, func(f Frontend) bool { return f.Kind != NodePort && f.Addr == at })
			if FamilyOf(a) == FamilyOf(clusterIP) && !named {
				fs = append(fs, Frontend{kind, at})
			}
		}
	}
	add(LoadBalancerIP, s.LoadBalancerIPs)
	add(ExternalIP, s.ExternalIPs)
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

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
