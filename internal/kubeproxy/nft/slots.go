package nft

import (
	"net/netip"
	"slices"

	"varco.dev/internal/service"
)

// Slots are the backends of a Service port by slot, for each of its two sets of backends. A backend with more weight has
// more slots.
type Slots struct{ Cluster, Local []service.Backend }

func (s Slots) equal(t Slots) bool {
	return slices.Equal(s.Cluster, t.Cluster) && slices.Equal(s.Local, t.Local)
}

// SlotsOf puts the backends of a Port into slots, given those of before, which matter only if it balances at random: see
// keep. Otherwise they follow from the backends alone, so that all nodes choose alike. It is pure. The result may share
// memory with its arguments.
func SlotsOf(p *service.Port, before Slots) Slots {
	if p == nil {
		return Slots{}
	}
	switch p.Balance {
	case service.Maglev:
		return Slots{maglev(p.Cluster), maglev(p.Local)}
	case service.HashSourceIP:
		return Slots{weighted(p.Cluster), weighted(p.Local)}
	}
	return Slots{keep(before.Cluster, weighted(p.Cluster)), keep(before.Local, weighted(p.Local))}
}

// keep puts the wanted backends into slots, given those of before: who stays keeps the slot, who is new takes one that
// has become free, and the last ones move into those left. So a change of one backend changes two elements at most,
// however many there are, and what is remembered by slot stays true. A backend may be wanted in several slots.
func keep(before, want []service.Backend) []service.Backend {
	if len(before) == 0 || slices.Equal(before, want) {
		return want
	}
	type wish struct {
		service.Backend
		slots int
	}
	missing := make(map[netip.AddrPort]wish, len(want))
	for _, b := range want {
		missing[b.Addr] = wish{b, missing[b.Addr].slots + 1}
	}
	out := make([]service.Backend, len(before), max(len(before), len(want)))
	var free []int
	for i, b := range before {
		w := missing[b.Addr]
		if w.slots == 0 {
			free = append(free, i)
			continue
		}
		out[i] = w.Backend
		missing[b.Addr] = wish{w.Backend, w.slots - 1}
	}
	for _, b := range want {
		w := missing[b.Addr]
		if w.slots == 0 {
			continue
		}
		missing[b.Addr] = wish{b, w.slots - 1}
		if len(free) > 0 {
			out[free[0]], free = b, free[1:]
		} else {
			out = append(out, b)
		}
	}
	return closeGaps(out, free)
}

// closeGaps moves the last backends into the free slots, which are sorted.
func closeGaps(slots []service.Backend, free []int) []service.Backend {
	for len(free) > 0 {
		last := len(slots) - 1
		if free[len(free)-1] == last {
			free = free[:len(free)-1]
		} else {
			slots[free[0]], free = slots[last], free[1:]
		}
		slots = slots[:last]
	}
	return slots
}

// Bounds of the slots that weights may take. Within them, shares are exact as long as the weights are small numbers, and
// otherwise to a fraction of the least of them.
const (
	maxWeightedSlots      = 4096 // of a set with few backends
	maxSlotsPerBackend    = 4    // on average, in a set with many
	defaultWeight         = 1    // of a backend that says 0
	maxWeightedSetOfSlots = MaxBackends
)

// weighted repeats each backend in proportion to its weight. The result has at most MaxBackends slots; backends beyond
// that are left out. It shares memory with the argument if all have the same weight.
func weighted(backends []service.Backend) []service.Backend {
	backends = backends[:min(len(backends), MaxBackends)]
	sum, divisor, same := 0, 0, true
	for _, b := range backends {
		w := weightOf(b)
		sum, divisor, same = sum+w, gcd(divisor, w), same && w == weightOf(backends[0])
	}
	if same {
		return backends
	}
	limit := min(max(maxWeightedSlots, maxSlotsPerBackend*len(backends)), maxWeightedSetOfSlots)
	var out []service.Backend
	for i, b := range backends {
		n := weightOf(b) / divisor
		if sum/divisor > limit {
			n = max(1, weightOf(b)*(limit-len(backends))/sum)
		}
		n = min(n, MaxBackends-len(out)-(len(backends)-1-i)) // leave one for each of the others
		out = append(out, slices.Repeat([]service.Backend{b}, n)...)
	}
	return out
}

func weightOf(b service.Backend) int { return max(int(b.Weight), defaultWeight) }

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
