package nft

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"

	"varco.dev/internal/service"
)

// MaglevSlots is the number of slots of a set that is balanced by Maglev: a prime, and so many that with a hundred backends
// none gets over one percent more than its share.
const MaglevSlots = 65537

// maglev fills the slots as "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016, section 3.4) does:
// each backend has its own order of all slots, and they take turns to take the next one in it that is free. So all nodes
// compute the same table, whatever happened before, and when a backend goes, few of the others' slots change hands. A
// backend takes as many turns in a row as its weight says, relative to the greatest one.
func maglev(backends []service.Backend) []service.Backend {
	if len(backends) == 0 {
		return nil
	}
	backends = backends[:min(len(backends), MaglevSlots)]
	table := make([]service.Backend, MaglevSlots)
	orders := make([]order, len(backends))
	greatest := 0
	for i, b := range backends {
		orders[i] = orderOf(b)
		greatest = max(greatest, weightOf(b))
	}
	for taken := 0; ; {
		for i, b := range backends {
			o := &orders[i]
			// A backend whose weight is less than the greatest sits out some turns.
			if o.credit += weightOf(b); o.credit < greatest {
				continue
			}
			o.credit -= greatest
			table[o.next(table)] = b
			if taken++; taken == MaglevSlots {
				return table
			}
		}
	}
}

// order is a backend's permutation of the slots, and its way through it.
type order struct {
	at, step uint32
	credit   int // turns not taken yet, in units of weight
}

func orderOf(b service.Backend) order {
	sum := hashOf(b.Addr)
	return order{at: uint32(sum % MaglevSlots), step: uint32(sum>>32%(MaglevSlots-1)) + 1}
}

// hashOf returns the same number for an address and port on every node, and with every version of this program.
func hashOf(a netip.AddrPort) uint64 {
	addr := a.Addr().As16()
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint16(addr[:], a.Port()))
	return mix(h.Sum64())
}

// mix spreads each bit over the whole word, which FNV does not do for the last bytes it was given (the finalizer of
// MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// next returns the next slot in the order that is free.
func (o *order) next(table []service.Backend) uint32 {
	for {
		at := o.at
		o.at = (o.at + o.step) % MaglevSlots
		if !table[at].Addr.IsValid() {
			return at
		}
	}
}
