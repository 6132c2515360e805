package service

import (
	"cmp"
	"net/netip"
	"slices"
)

// candidate is an endpoint behind a Service port.
type candidate struct {
	addr netip.AddrPort
	*Endpoint
}

func (c candidate) local(node string) bool { return node != "" && c.Node == node }

// candidates returns the endpoints behind a Service port, whatever their conditions, sorted by address.
//
// An address that is listed twice counts once. The listing that does not terminate wins, because a pod's address may be
// given to the next pod before the slice of the first one is updated; among equals the better condition wins, so that
// the result does not depend on the order of slices.
func candidates(key Key, of []*Slice) []candidate {
	sorted := merge(listings(key, of))
	return slices.CompactFunc(sorted, func(a, b candidate) bool { return a.addr == b.addr })
}

func (c candidate) compare(d candidate) int {
	if r := c.addr.Compare(d.addr); r != 0 {
		return r
	}
	return better(d.Endpoint, c.Endpoint)
}

// listings returns the endpoints behind a Service port as they are listed: all in a row, in runs that are sorted and that
// begin where starts says.
func listings(key Key, of []*Slice) (found []candidate, starts []int) {
	n := 0
	for _, s := range of {
		n += len(s.Endpoints) * s.portsOf(key)
	}
	if n == 0 {
		return nil, nil
	}
	found = make([]candidate, 0, n)
	for _, s := range of {
		for _, p := range s.Ports {
			if p.Name != key.Port || p.Protocol != key.Protocol {
				continue
			}
			starts = append(starts, len(found))
			for i := range s.Endpoints {
				if e := &s.Endpoints[i]; FamilyOf(e.Addr) == key.Family {
					found = append(found, candidate{netip.AddrPortFrom(e.Addr, p.Port), e})
				}
			}
		}
	}
	return found, starts
}

// merge sorts a row of sorted runs, two neighbours at a time. With 100 slices of 1,000 endpoints that is several times
// faster than to sort them all at each change of one.
func merge(row []candidate, starts []int) []candidate {
	if len(starts) < 2 {
		return row
	}
	spare := make([]candidate, 0, len(row))
	for len(starts) > 1 {
		spare = spare[:0]
		var merged []int
		for i := 0; i < len(starts); i += 2 {
			merged = append(merged, len(spare))
			from, to := starts[i], len(row)
			if i+1 == len(starts) {
				spare = append(spare, row[from:]...)
				break
			}
			if i+2 < len(starts) {
				to = starts[i+2]
			}
			spare = mergeTwo(spare, row[from:starts[i+1]], row[starts[i+1]:to])
		}
		row, spare, starts = spare, row, merged
	}
	return row
}

func mergeTwo(out, a, b []candidate) []candidate {
	for len(a) > 0 && len(b) > 0 {
		if a[0].compare(b[0]) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// sorted returns the slice with its endpoints in the order that listings relies on. It does not change the slice.
func (s *Slice) sorted() *Slice {
	all := s.Endpoints
	for i := 1; i < len(all); i++ {
		if all[i-1].compare(&all[i]) > 0 {
			out := *s
			out.Endpoints = slices.Clone(all)
			slices.SortFunc(out.Endpoints, func(e, f Endpoint) int { return e.compare(&f) })
			return &out
		}
	}
	return s
}

// compare orders endpoints by address, the better listing of an address first.
func (e *Endpoint) compare(f *Endpoint) int {
	if r := e.Addr.Compare(f.Addr); r != 0 {
		return r
	}
	return better(f, e)
}

// portsOf returns how many ports belong to the Service port: one, or none.
func (s *Slice) portsOf(key Key) (n int) {
	for _, p := range s.Ports {
		if p.Name == key.Port && p.Protocol == key.Protocol {
			n++
		}
	}
	return n
}

// better compares two listings of the same address.
func better(e, f *Endpoint) int {
	return cmp.Or(
		compareBool(!e.Terminating, !f.Terminating),
		compareBool(e.Ready, f.Ready),
		compareBool(e.Serving, f.Serving),
		cmp.Compare(e.Node, f.Node),
		cmp.Compare(e.Zone, f.Zone),
		slices.Compare(e.ForNodes, f.ForNodes),
		slices.Compare(e.ForZones, f.ForZones),
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

// backendsOf returns the candidates that are to be kept, as backends. A node name of "" makes none of them local.
func (t *Table) backendsOf(s *Service, cs []candidate, keep func(candidate) bool) []Backend {
	n := 0
	for _, c := range cs {
		if keep(c) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	out := make([]Backend, 0, n)
	for _, c := range cs {
		if keep(c) {
			out = append(out, Backend{Addr: c.addr, Local: c.local(t.node), Weight: s.weightOf(c.Endpoint)})
		}
	}
	return out
}

// weightOf returns the weight of an endpoint: the first that matches, or 1.
func (s *Service) weightOf(e *Endpoint) uint16 {
	for _, w := range s.Weights {
		switch {
		case w.Addr.IsValid() && w.Addr == e.Addr,
			w.Node != "" && w.Node == e.Node,
			w.Zone != "" && w.Zone == e.Zone:
			return w.Weight
		}
	}
	return 1
}

// weigh leaves out the backends that have no weight, unless none has: then all count the same. It changes the slice.
func weigh(bs []Backend) []Backend {
	if slices.ContainsFunc(bs, func(b Backend) bool { return b.Weight > 0 }) {
		bs = slices.DeleteFunc(bs, func(b Backend) bool { return b.Weight == 0 })
		return bs
	}
	for i := range bs {
		bs[i].Weight = 1
	}
	return bs
}
