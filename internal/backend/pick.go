package backend

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// clearly is how many times as many requests as another one a target must have in flight for that to decide between them.
	// Less is noise: of 64 requests over 10 targets, the number at one varies by a third. It must be more by byCount as well: one
	// against none is noise too, and of a few requests at a time on a busy machine, made shares of equal targets 1 to 2.
	clearly, byCount = 2, 2
	// mostLag is how many picks a target that was passed over, because it had much to do, may catch up on. It does so at twice
	// the speed of the others at most, since it is drawn in two of n cases.
	mostLag = 128
	// few targets are all looked at where leases last: of three, two drawn at random would leave out the least busy one in a third of
	// all picks.
	few = 3
)

// Want is what a pick must look at.
type Want struct {
	// Avoid are targets that must not be picked, such as those that were tried before. A few of them, since they are
	// searched.
	Avoid []netip.AddrPort
	// Stay is the target to be picked if it is up, whatever its tier; the zero value is none.
	Stay netip.AddrPort
	// Key, if Keyed, decides which target is picked, and which one if that is not up, and so on: equal keys get equal targets
	// from all pools with the same targets, and few keys move when one comes or goes (rendezvous hashing, Thaler and
	// Ravishankar 1996). Such picks cost time in proportion to the number of targets.
	Key   uint64
	Keyed bool
}

// Pick picks a target. The lease must be done at some time; what came of it should be reported before. Of targets that are
// left out one is picked if no other is left. The error is ErrNone.
func (p *Pool) Pick(w Want) (Lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	t := p.choose(now, &w)
	if t == nil {
		return Lease{}, ErrNone
	}
	return p.lease(now, t), nil
}

// Others tells whether there is a target that is up besides those to be avoided.
func (p *Pool) Others(avoid []netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.up {
		if p.next(l, 0, avoid, nil) != nil {
			return true
		}
	}
	return false
}

func (p *Pool) choose(now time.Duration, w *Want) *target {
	if t := p.targets[w.Stay]; w.Stay.IsValid() && t != nil && t.usable(now) && !slices.Contains(w.Avoid, t.addr) {
		return t
	}
	if w.Keyed {
		return p.byKey(now, w)
	}
	if len(w.Avoid) == 0 && now >= p.nextTrial { // who has failed once already gets one that is known to work
		if t := p.due(now); t != nil {
			return t
		}
	}
	for _, l := range p.up {
		if t := p.ofTwo(now, l, w.Avoid); t != nil {
			return t
		}
	}
	if t := p.ofTwo(now, p.down, w.Avoid); t != nil { // better an unlikely one than none
		return t
	}
	return p.ofTwo(now, p.dead, w.Avoid)
}

// ofTwo draws two targets of a list and returns the better one; nil if all are to be avoided.
func (p *Pool) ofTwo(now time.Duration, l []member, avoid []netip.AddrPort) *target {
	switch {
	case len(l) == 0:
		return nil
	case p.config.Least && len(l) <= few:
		return p.ofFew(now, l, avoid)
	}
	r := p.config.Random()
	i := int((r & 0xffffffff) * uint64(len(l)) >> 32)
	a := p.next(l, i, avoid, nil)
	if a == nil || len(l) == 1 {
		return a
	}
	b := p.next(l, a.at+1+int((r>>32)*uint64(len(l)-1)>>32), avoid, a)
	if b == nil || p.before(a, b, now) {
		return a
	}
	return b
}

// ofFew returns the best target of a list, looking at all of them.
func (p *Pool) ofFew(now time.Duration, l []member, avoid []netip.AddrPort) (best *target) {
	for _, m := range l {
		if !slices.Contains(avoid, m.addr) && (best == nil || p.before(m.target, best, now)) {
			best = m.target
		}
	}
	return best
}

// next returns the first target of a list from a place on, around the end, that is not to be avoided. The few to be avoided
// bound its steps.
func (p *Pool) next(l []member, from int, avoid []netip.AddrPort, not *target) *target {
	for n := range l {
		if t := l[(from+n)%len(l)].target; t != not && !slices.Contains(avoid, t.addr) {
			return t
		}
	}
	return nil
}

// before tells whether a target is to be taken rather than another.
func (p *Pool) before(t, other *target, now time.Duration) bool {
	mine, theirs := t.load(now), other.load(now)
	switch {
	case p.config.Least && mine != theirs:
		return mine < theirs
	case mine >= clearly*theirs && mine >= theirs+byCount:
		return false
	case theirs >= clearly*mine && theirs >= mine+byCount:
		return true
	}
	return t.pass <= other.pass
}

// load is what a target would have to do with one request more, for what it bears.
func (t *target) load(now time.Duration) float64 { return float64(t.inFlight+1) / t.weight(now) }

// byKey returns the first target in the order of a key that is up or may be tried, or else the first that is not.
func (p *Pool) byKey(now time.Duration, w *Want) *target {
	for of := range tiers {
		best := first(nil, p.up[of], w, nil)
		if best = first(best, p.down, w, func(t *target) bool { return t.tier == of && t.usable(now) }); best != nil {
			return best
		}
	}
	if best := first(nil, p.down, w, nil); best != nil {
		return best
	}
	return first(nil, p.dead, w, nil)
}

// first returns which target of a list, or best, is the first in the order of a key.
func first(best *target, l []member, w *Want, may func(*target) bool) *target {
	var most uint64
	if best != nil {
		most = mix(best.hash ^ w.Key)
	}
	for _, m := range l {
		score := mix(m.hash ^ w.Key)
		if (best == nil || score > most) && (may == nil || may(m.target)) && !slices.Contains(w.Avoid, m.addr) {
			best, most = m.target, score
		}
	}
	return best
}

// usable tells whether a target is up, or may be tried.
func (t *target) usable(now time.Duration) bool {
	return t.state == up || t.state == down && now >= t.next()
}

// lease notes a pick.
func (p *Pool) lease(now time.Duration, t *target) Lease {
	t.pass = max(t.pass, p.lead-mostLag)
	p.lead = max(p.lead, t.pass)
	t.pass += p.slowness(t, now) / t.weight(now)
	t.inFlight++
	p.inFlight++
	if t.state == down {
		t.trial, t.patience = true, now+trialTime
		p.schedule()
	}
	return Lease{pool: p, target: t, trial: t.state == down}
}
