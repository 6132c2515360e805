package service

import (
	"cmp"
	"net/netip"
	"slices"
)

// place is what only one Service port can have: an address and port, or a NodePort of a family (then the address is
// the unspecified one of the family).
type place struct {
	addr     netip.AddrPort
	protocol Protocol
}

// claim is the wish of a Service port for a place.
type claim struct {
	of       *entry
	port     string
	protocol Protocol
	family   Family
	kind     Kind
	created  int64 // Unix time of the Service's creation, seconds
}

func claimOf(e *entry, s *Service, k Key, kind Kind) claim {
	return claim{of: e, port: k.Port, protocol: k.Protocol, family: k.Family, kind: kind, created: s.Created.Unix()}
}

func (c claim) key() Key {
	return Key{Service: c.of.name, Port: c.port, Protocol: c.protocol, Family: c.family}
}

// compare orders claims, the best first: by kind, then the older Service, then the name.
func (c claim) compare(d claim) int {
	return cmp.Or(cmp.Compare(c.kind, d.kind), cmp.Compare(c.created, d.created), c.key().Compare(d.key()))
}

// claims knows who wants which place. The first claim of a place has it.
type claims map[place][]claim

// add enters a claim, once. It returns those whose lot changes by it.
func (cs claims) add(p place, c claim) (others []claim) {
	have := cs[p]
	i, there := slices.BinarySearchFunc(have, c, claim.compare)
	if there {
		return nil
	}
	if i == 0 {
		others = have
	}
	cs[p] = slices.Insert(slices.Clip(have), i, c)
	return others
}

// remove takes a claim back. It returns those whose lot changes by it.
func (cs claims) remove(p place, c claim) (others []claim) {
	have := cs[p]
	i, there := slices.BinarySearchFunc(have, c, claim.compare)
	switch {
	case !there:
		return nil
	case len(have) == 1:
		delete(cs, p)
		return nil
	}
	rest := slices.Delete(slices.Clone(have), i, i+1)
	cs[p] = rest
	if i == 0 {
		return rest
	}
	return nil
}

// winner returns the claim that has the place.
func (cs claims) winner(p place) (claim, bool) {
	if have := cs[p]; len(have) > 0 {
		return have[0], true
	}
	return claim{}, false
}
