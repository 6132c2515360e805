package service

import (
	"cmp"
	"slices"
)

// place is what only one Service port can have: an address and port, or a NodePort of a family (then the address is
// the unspecified one).
type place struct {
	frontend Frontend // with Kind zeroed for all but NodePorts: kinds share their addresses
	protocol Protocol
	family   Family
}

func placeOf(k Key, f Frontend) place {
	if f.Kind != NodePort {
		f.Kind = ClusterIP
	}
	return place{frontend: f, protocol: k.Protocol, family: k.Family}
}

// claim is the wish of a Service port for a place.
type claim struct {
	key     Key
	kind    Kind
	created int64 // Unix time of the Service's creation, seconds
}

// compare orders claims, the best first: by kind, then the older Service, then the name.
func (c claim) compare(d claim) int {
	return cmp.Or(cmp.Compare(c.kind, d.kind), cmp.Compare(c.created, d.created), c.key.Compare(d.key))
}

// claims knows who wants which place. The first claim of a place has it.
type claims map[place][]claim

// add enters a claim and returns the ports whose lot may change by it: all that want the place.
func (cs claims) add(p place, c claim) (others []Key) {
	have := cs[p]
	i, _ := slices.BinarySearchFunc(have, c, claim.compare)
	if i == 0 {
		others = keysOf(have)
	}
	cs[p] = slices.Insert(have, i, c)
	return others
}

// remove takes a claim back and returns the ports whose lot may change by it.
func (cs claims) remove(p place, c claim) (others []Key) {
	have := cs[p]
	i, found := slices.BinarySearchFunc(have, c, claim.compare)
	if !found {
		return nil
	}
	have = slices.Delete(have, i, i+1)
	if len(have) == 0 {
		delete(cs, p)
		return nil
	}
	cs[p] = have
	if i == 0 {
		others = keysOf(have)
	}
	return others
}

func keysOf(list []claim) (keys []Key) {
	for _, c := range list {
		keys = append(keys, c.key)
	}
	return keys
}

// winner returns the port that has the place.
func (cs claims) winner(p place) (claim, bool) {
	if have := cs[p]; len(have) > 0 {
		return have[0], true
	}
	return claim{}, false
}
