package loop

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"varco.dev/internal/kernel/tcp"
)

const (
	shards    = 64 // of the counts of sources: two loops seldom want the same lock
	sourceBit = 64 // of an IPv6 address: what one site has
)

// sources counts the connections of each source.
type sources [shards]struct {
	mu    sync.Mutex
	count map[netip.Addr]int
}

// sourceOf returns an IPv4 address, or the first address of an IPv6 /64.
func sourceOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(sourceBit)
	if err != nil {
		return a
	}
	return p.Addr()
}

func shardOf(source netip.Addr) int {
	b := source.As16()
	sum := 0
	for _, x := range b[4:] {
		sum = sum*31 + int(x)
	}
	return sum & (shards - 1)
}

// take counts one more connection of a source, unless there are so many.
func (s *sources) take(source netip.Addr, most int) bool {
	shard := &s[shardOf(source)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.count[source] >= most {
		return false
	}
	if shard.count == nil {
		shard.count = map[netip.Addr]int{}
	}
	shard.count[source]++
	return true
}

func (s *sources) give(source netip.Addr) {
	shard := &s[shardOf(source)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.count[source]--; shard.count[source] <= 0 {
		delete(shard.count, source)
	}
}

// refuse resets a client that is one too many.
func (w *worker) refuse(fd int, count *atomic.Uint64, what string, most int) {
	tcp.Reset(fd)
	count.Add(1)
	if w.relay.seldom() {
		w.log.Warn("too many connections at a time, some are turned away", "limit", what, "most", most)
	}
}
