package nft

import "varco.dev/internal/service"

// Counters tells what is counted for each frontend.
type Counters uint8

// What may be counted. Each adds to the one before.
const (
	CountNothing     Counters = iota
	CountConnections          // connections: one more look-up for the first packet of each
	CountAll                  // packets and bytes too: one more look-up for each packet
)

// Count is what was counted for a frontend since the tables were made, or since it was.
type Count struct {
	Connections uint64
	Packets     uint64 // both ways
	Bytes       uint64 // both ways, IP headers included
}

// counting is a Kernel that says what it counts.
type counting interface{ Counting() Counters }

// countersOf returns what a kernel counts: nothing, unless it says so.
func countersOf(k Kernel) Counters {
	if c, ok := k.(counting); ok {
		return c.Counting()
	}
	return CountNothing
}

// CountedAt returns the place under which the counts of a Port's frontend are found in the result of Netlink.Counters.
func CountedAt(k service.Key, f service.Frontend) Place {
	return Place{Family: k.Family, Set: setsOf(f.Kind).frontends, Key: string(frontendKey(k, f))}
}
