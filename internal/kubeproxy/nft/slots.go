package nft

import (
	"net/netip"

	"varco.dev/internal/service"
)

// arrange puts the wanted backends into slots, given those of before: who stays keeps the slot, who is new takes one that
// has become free, and the last ones move into those left. So a change of one backend changes two elements at most,
// however many there are, and what is remembered by slot stays true. It is pure.
func arrange(before, want []service.Backend) []service.Backend {
	if len(before) == 0 {
		return want // sorted
	}
	missing := make(map[netip.AddrPort]service.Backend, len(want))
	for _, b := range want {
		missing[b.Addr] = b
	}
	slots := make([]service.Backend, len(before), max(len(before), len(want)))
	var free []int
	for i, b := range before {
		if now, ok := missing[b.Addr]; ok {
			slots[i] = now
			delete(missing, b.Addr)
		} else {
			free = append(free, i)
		}
	}
	for _, b := range want {
		if _, ok := missing[b.Addr]; !ok {
			continue
		}
		if len(free) > 0 {
			slots[free[0]], free = b, free[1:]
		} else {
			slots = append(slots, b)
		}
	}
	return closeGaps(slots, free)
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
