package backend_test

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"time"

	"varco.dev/internal/backend"
)

// addr is the address of target number n.
func addr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80)
}

func targets(n int) []backend.Target {
	out := make([]backend.Target, n)
	for i := range out {
		out[i].Addr = addr(i)
	}
	return out
}

// crowd is a number of workers who send one request after the other to a pool, in a time of their own.
type crowd struct {
	now    time.Time
	pool   *backend.Pool
	random *rand.Rand
	takes  func(n int, now time.Duration) (time.Duration, bool) // how long a request to target n takes, and whether it works
	got    map[netip.AddrPort]int
	most   map[netip.AddrPort]int // in flight
	flying map[netip.AddrPort]int
	failed int // requests that failed after three tries
	tries  map[netip.AddrPort]int
	events events
	start  time.Time
}

type event struct {
	at    time.Time
	lease backend.Lease
	began time.Time
	ok    bool
	tried []netip.AddrPort
}

type events []*event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newCrowd(seed uint64, n int, takes func(n int, now time.Duration) (time.Duration, bool)) *crowd {
	c := &crowd{now: time.Unix(1e9, 0), random: rand.New(rand.NewPCG(seed, seed)), takes: takes}
	c.start = c.now
	c.pool = backend.NewPool(backend.Config{Now: func() time.Time { return c.now }, Random: c.random.Uint64})
	c.pool.Set(targets(n))
	c.flying = map[netip.AddrPort]int{}
	c.reset()
	return c
}

func (c *crowd) reset() {
	c.got, c.most, c.tries, c.failed = map[netip.AddrPort]int{}, map[netip.AddrPort]int{}, map[netip.AddrPort]int{}, 0
}

func (c *crowd) try(tried []netip.AddrPort) {
	lease, err := c.pool.Pick(backend.Want{Avoid: tried})
	if err != nil {
		c.failed++
		return
	}
	a := lease.Addr()
	b := a.Addr().As4()
	took, ok := c.takes(int(b[2])<<8|int(b[3]), c.now.Sub(c.start))
	c.tries[a]++
	c.flying[a]++
	c.most[a] = max(c.most[a], c.flying[a])
	heap.Push(&c.events, &event{at: c.now.Add(took), began: c.now, lease: lease, ok: ok, tried: append(tried, a)})
}

// step ends one try, and begins the next one of its worker.
func (c *crowd) step(again bool) {
	e := heap.Pop(&c.events).(*event)
	c.now = e.at
	if e.ok {
		e.lease.Answered(e.at.Sub(e.began))
		c.got[e.lease.Addr()]++
	} else {
		e.lease.Failed(backend.Unreachable)
	}
	e.lease.Done()
	c.flying[e.lease.Addr()]--
	switch {
	case !e.ok && len(e.tried) < 3:
		c.try(e.tried)
		return
	case !e.ok:
		c.failed++
	}
	if again {
		c.try(nil)
	}
}

// send sends requests.
func (c *crowd) send(workers, requests int) {
	for range workers {
		c.try(nil)
	}
	for range requests - workers {
		c.step(true)
	}
	for len(c.events) > 0 {
		c.step(false)
	}
}

// spread is the largest share over the smallest.
func (c *crowd) spread(n int) float64 {
	least, most := 1<<60, 0
	for i := range n {
		least, most = min(least, c.got[addr(i)]), max(most, c.got[addr(i)])
	}
	return float64(most) / float64(least)
}
