package backend

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// ErrNone says that a pool has no target that could be picked: it is empty, or all are to be avoided.
var ErrNone = errors.New("no target is left to pick")

// Target is one member of a pool.
type Target struct {
	Addr netip.AddrPort // tells targets apart
	// Preferred targets are picked as long as one of them is up, such as those that topology hints give to our zone. If none
	// of a pool is, none is better than another.
	Preferred bool
	// Draining targets are about to end. They are picked only if there is no other.
	Draining bool
	// Down targets are known not to answer. They are picked only if nothing else is left, those that have failed included, and
	// never tried. One that is set without Down again begins anew: slowly, and with its failures forgotten.
	Down bool
	// Since is when it came up, if others know that. One that came up anew begins slowly, whatever it was used for meanwhile: of
	// those that come back together none gets all that the others do not take yet. The zero value says nothing.
	Since time.Time
}

// Config is what NewPool wants to know. All of it is optional.
type Config struct {
	Now    func() time.Time // default: time.Now
	Random func() uint64    // default: rand.Uint64; called under the pool's lock
	// Least is for leases that last, such as connections: the target with the fewest for its weight is taken, of two drawn at
	// random or of all of a few, and of equal ones the one that has had less. As the one with the fewest would get all that are
	// new, targets that are new beside others, or not draining any more, begin slowly as well.
	Least bool
	// Ejected is told of a target that is left out from now on, and for how long; Returned of one that is back. They are
	// called without a lock, by whoever has reported what decided it.
	Ejected  func(addr netip.AddrPort, d time.Duration)
	Returned func(addr netip.AddrPort)
}

// Pool is a set of targets to pick from. It is safe for concurrent use, and has no goroutine.
type Pool struct {
	config Config
	epoch  time.Time // of the clock

	mu        sync.Mutex // guards the fields below
	targets   map[netip.AddrPort]*target
	up        [tiers][]member
	down      []member      // left out
	dead      []member      // known to be down
	nextTrial time.Duration // when one of them may be tried; never: none
	lead      float64       // the pass that the last picks were made at
	latency   average       // of all targets
	inFlight  int
}

// tier is how much a target is wanted; those of a lower one come first.
type tier uint8

const (
	preferred tier = iota
	ordinary
	draining
	tiers
)

// never is later than any time.
const never = time.Duration(1<<63 - 1)

// target is what is known of a member.
type target struct {
	addr netip.AddrPort
	host string // addr as text
	hash uint64 // of addr, the same everywhere
	tier tier
	state
	at int // in its list

	inFlight int
	pass     float64 // how much it has had: grows by one with each pick, by more while it bears less
	latency  average

	failures  [failureKinds]int // in a row
	since     time.Time         // Target.Since, as far as it is known
	ejections int               // in a row
	until     time.Duration     // it is left out
	trial     bool              // a request is on its way that may bring it back
	patience  time.Duration     // until then no other may try
	back      time.Duration     // when it was taken back; never: it has its whole weight
}

// member is a target in a list, with what picks by key look at all of.
type member struct {
	hash uint64
	*target
}

// state is where a target is listed.
type state uint8

const (
	gone state = iota // the pool does not have it any more; leases may
	up
	down // left out
	dead // known to be down
)

// NewPool returns a pool without targets.
func NewPool(c Config) *Pool {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Uint64
	}
	return &Pool{config: c, epoch: c.Now(), targets: map[netip.AddrPort]*target{}, nextTrial: never}
}

// clock returns the time since the pool was made, by the monotonic clock.
func (p *Pool) clock() time.Duration { return p.config.Now().Sub(p.epoch) }

// Set has the pool hold these targets and no others. What is known of those that stay is kept; leases of those that go may
// still be reported on.
func (p *Pool) Set(targets []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.targets
	p.targets = make(map[netip.AddrPort]*target, len(targets))
	p.up, p.down, p.dead = [tiers][]member{}, nil, nil
	now, others := p.clock(), len(old) > 0
	for _, want := range targets {
		if _, twice := p.targets[want.Addr]; twice {
			continue
		}
		t := old[want.Addr]
		if t == nil {
			t = p.newTarget(want.Addr, others)
		}
		delete(old, want.Addr)
		p.assess(t, want, now)
		p.targets[want.Addr] = t
		p.list(t)
	}
	for _, t := range old {
		t.state = gone
	}
	p.schedule()
}

func (p *Pool) listOf(t *target) *[]member {
	switch t.state {
	case up:
		return &p.up[t.tier]
	case dead:
		return &p.dead
	}
	return &p.down
}

// list puts a target into the list of its state.
func (p *Pool) list(t *target) {
	l := p.listOf(t)
	t.at = len(*l)
	*l = append(*l, member{t.hash, t})
}

// unlist takes it out again.
func (p *Pool) unlist(t *target) {
	l := p.listOf(t)
	last := len(*l) - 1
	(*l)[t.at] = (*l)[last]
	(*l)[t.at].at = t.at
	(*l)[last] = member{}
	*l = (*l)[:last]
}

// Stats is a pool at one moment.
type Stats struct {
	Targets  int // all of them
	Ejected  int // those that are left out; those known to be down do not count
	InFlight int // leases that are not done, those of targets that are gone included
}

// Stats counts.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{len(p.targets), len(p.down), p.inFlight}
}
