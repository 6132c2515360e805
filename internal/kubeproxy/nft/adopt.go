package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"varco.dev/internal/service"
)

// spareNumbers is how much higher than needed the numbers of Ports may be that are taken over from a table. Those beyond,
// which only damage can bring about, are given anew: the free numbers below are kept in a list.
const spareNumbers = 1 << 16

// adopt takes over what the kernel holds, as far as the Ports can go on with it: the number of a Port is the one that its
// frontends lead to, and its slots are those that are stored under the number. Where that is not consistent, the Port gets
// a new number; what is wrong in the kernel then is among the differences.
func (s *state) adopt(content *Content, ports []service.Change) {
	s.generation = content.Generation
	for _, c := range content.Classes {
		s.classes.know(c)
	}
	for _, c := range content.Retired {
		s.classes.retire(c)
	}
	for _, l := range content.Lengths {
		s.lengths[l] = true
	}
	taken := map[uint32]bool{}
	for _, change := range ports {
		p := change.New
		number, ok := content.number(p)
		if !ok || taken[number] || number > uint32(2*len(ports)+spareNumbers) {
			continue
		}
		taken[number] = true
		s.ids.take(p.Key, number)
		if p.Balance == service.Random {
			s.slots[p.Key] = Slots{content.slots(p.Key.Family, clusterID(number)), content.slots(p.Key.Family, localID(number))}
		}
	}
	s.ids.collect(taken)
}

// number returns the number of a Port, if one of its frontends leads to any.
func (c *Content) number(p *service.Port) (uint32, bool) {
	for _, f := range p.Frontends {
		sets, key := setsOf(f.Kind), string(frontendKey(p.Key, f))
		for _, set := range []Set{sets.frontends, sets.shortcuts} {
			i := c.search(Place{p.Key.Family, set, key})
			if i < len(c.Elements) && c.Elements[i].Place == (Place{p.Key.Family, set, key}) {
				return idIn(c.Elements[i].Value) >> 1, true
			}
		}
	}
	return 0, false
}

// slots returns the backends stored under an id, or none unless they are numbered from 0 on.
func (c *Content) slots(family service.Family, id uint32) []service.Backend {
	prefix := string(number(id))
	begin := c.search(Place{family, Endpoints, prefix})
	end := begin
	for end < len(c.Elements) && c.Elements[end].Set == Endpoints && c.Elements[end].Family == family && c.Elements[end].Key[:len(prefix)] == prefix {
		end++
	}
	slots := make([]service.Backend, end-begin)
	for _, e := range c.Elements[begin:end] {
		slot := binary.NativeEndian.Uint32([]byte(e.Key[len(prefix):]))
		if int64(slot) >= int64(len(slots)) {
			return nil
		}
		slots[slot].Addr = backendIn(e.Value, family)
	}
	return slots
}

// search returns where the elements begin that are at a place or after it.
func (c *Content) search(p Place) int {
	i, _ := slices.BinarySearchFunc(c.Elements, Element{Place: p}, Element.Compare)
	return i
}

// backendIn returns the address in the value of an element of Endpoints.
func backendIn(value string, family service.Family) netip.AddrPort {
	n := addr.size(family)
	a, _ := netip.AddrFromSlice([]byte(value[:n]))
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(value[n:])))
}

// differ returns what to delete and what to add to get from one list of elements to another; both are sorted. The result
// takes over the memory of both.
func differ(have, want []Element) (remove, add []Element) {
	remove, add = have[:0], want[:0]
	for len(have) > 0 && len(want) > 0 {
		h, w := have[0], want[0]
		switch c := h.Compare(w); {
		case c == 0:
			have, want = have[1:], want[1:]
		case c < 0:
			remove, have = append(remove, h), have[1:]
		default:
			add, want = append(add, w), want[1:]
		}
	}
	return append(remove, have...), append(add, want...)
}

// whole returns the transaction that makes an empty table hold the elements, of which shared ones may repeat. It takes over
// their memory.
func (s *state) whole(elements []Element) (Transaction, after) {
	a := after{shared: map[Place]int{}, uses: map[Class]int{}}
	for _, e := range elements {
		switch {
		case e.Set.shared():
			a.shared[e.Place]++
		case e.Set.points():
			a.uses[classIn(e.Value)]++
		}
	}
	slices.SortFunc(elements, Element.Compare)
	tx := Transaction{Generation: s.generation, Add: slices.Compact(elements)}
	s.classes.plan(&tx, a.uses)
	s.planLengths(&tx)
	return tx, a
}
