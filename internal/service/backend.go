package service

import (
	"cmp"
	"net/netip"
	"slices"
)

// backends returns the endpoints of a Service port that new connections may go to: the ready ones or, if there are
// none, those that terminate but still serve (KEP-1669). The result is sorted.
//
// An address that is listed twice counts once. The listing that does not terminate wins, because a pod's address may be
// given to the next pod before the slice of the first one is updated; among equals the better condition wins, so that
// the result does not depend on the order of slices.
func backends(key Key, of map[Name]*Slice, node string) []Backend {
	found := map[netip.AddrPort]Endpoint{}
	for _, s := range of {
		for _, p := range s.Ports {
			if p.Name == key.Port && p.Protocol == key.Protocol {
				collect(found, s, p.Port, key.Family)
			}
		}
	}
	usable := pick(found, node, func(e Endpoint) bool { return e.Ready })
	if len(usable) == 0 {
		usable = pick(found, node, func(e Endpoint) bool { return e.Serving && e.Terminating })
	}
	slices.SortFunc(usable, Backend.Compare)
	return usable
}

func collect(found map[netip.AddrPort]Endpoint, s *Slice, port uint16, family Family) {
	for _, e := range s.Endpoints {
		if FamilyOf(e.Addr) != family {
			continue
		}
		addr := netip.AddrPortFrom(e.Addr, port)
		if known, ok := found[addr]; !ok || better(e, known) > 0 {
			found[addr] = e
		}
	}
}

// better compares two listings of the same address.
func better(e, f Endpoint) int {
	return cmp.Or(
		compareBool(!e.Terminating, !f.Terminating),
		compareBool(e.Ready, f.Ready),
		compareBool(e.Serving, f.Serving),
		cmp.Compare(e.Node, f.Node),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func pick(found map[netip.AddrPort]Endpoint, node string, usable func(Endpoint) bool) []Backend {
	var out []Backend
	for addr, e := range found {
		if usable(e) {
			out = append(out, Backend{Addr: addr, Local: e.Node != "" && e.Node == node})
		}
	}
	return out
}
