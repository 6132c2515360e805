package backend

import (
	"net/netip"
	"time"
)

const (
	// mostUnreachable times in a row have a target left out. One may be chance, such as a SYN that found a full backlog; HAProxy
	// takes 3 (fall), Envoy 5 (consecutive_local_origin_failure), nginx 1 (max_fails).
	mostUnreachable = 2
	// mostBroken is the same for connections that break before an answer. A single bad request may have any target do so, so it
	// takes as many as of Envoy's gateway failures (consecutive_gateway_failure: 5).
	mostBroken = 5
	// firstEjection and longestEjection bound how long a target is left out: twice as long each time, between Linkerd's
	// bounds for the same (failure accrual: 1 s to 1 min).
	firstEjection   = time.Second
	longestEjection = time.Minute
	// trialTime is after which time without a result another request may try. An answer may take hours, such as that of a stream
	// on which nothing happens, and the target must not be left out for so long.
	trialTime = longestEjection
	// SlowStart is how long a target takes to have its whole share again, and firstWeight what it begins with: Envoy's
	// slow start mode begins at 10 % (min_weight_percent) and grows in a straight line, as HAProxy's slowstart does.
	SlowStart   = 10 * time.Second
	firstWeight = 0.1
)

// Lease is a target that was picked. It may be copied.
type Lease struct {
	pool   *Pool
	target *target
	trial  bool // the target was left out
}

// Addr returns the target's address.
func (l Lease) Addr() netip.AddrPort { return l.target.addr }

// Host returns the target's address as text.
func (l Lease) Host() string { return l.target.host }

// Answered reports that the target has answered, and after which time; 0 says nothing about it. It should be called as soon as
// that is known, which is when the header of an answer has come, or when a connection stands.
func (l Lease) Answered(latency time.Duration) {
	p, t := l.pool, l.target
	p.mu.Lock()
	now := p.clock()
	if latency > 0 {
		p.learn(t, latency, now)
	}
	t.failures = [failureKinds]int{}
	returned := l.trial && t.state == down
	switch {
	case returned:
		p.takeBack(t, now)
	case t.back != never && now-t.back >= SlowStart:
		t.back, t.ejections = never, 0
	}
	p.mu.Unlock()
	if returned && p.config.Returned != nil {
		p.config.Returned(t.addr)
	}
}

// Failure is how a target failed.
type Failure uint8

// The failures.
const (
	Unreachable Failure = iota // no connection could be made
	Broken                     // it ended before an answer came
	failureKinds
)

// Failed reports that the target did not answer. It takes a few failures in a row for it to be left out. The last target that is up
// never is: then all are taken back at once, since more likely the fault is elsewhere.
func (l Lease) Failed(how Failure) {
	p, t := l.pool, l.target
	p.mu.Lock()
	now := p.clock()
	t.failures[how]++
	var d time.Duration
	if t.state == down && l.trial && t.trial || t.state == up && t.hasFailed(now) {
		d = p.eject(t, now)
	}
	p.mu.Unlock()
	if d > 0 && p.config.Ejected != nil {
		p.config.Ejected(t.addr, d)
	}
}

// hasFailed tells whether a target has failed often enough. One that is only just back gets no second chance.
func (t *target) hasFailed(now time.Duration) bool {
	most := mostUnreachable
	if t.weight(now) < 1 {
		most = 1
	}
	return t.failures[Unreachable] >= most || t.failures[Broken] >= mostBroken
}

// Done ends the lease. What was not reported counts neither for nor against the target.
func (l Lease) Done() {
	p, t := l.pool, l.target
	p.mu.Lock()
	defer p.mu.Unlock()
	t.inFlight--
	p.inFlight--
	if l.trial && t.state == down && t.trial {
		t.trial = false // the next one may try
		p.schedule()
	}
}

// weight is the share that a target has, of that of others.
func (t *target) weight(now time.Duration) float64 {
	if t.back == never || now-t.back >= SlowStart {
		return 1
	}
	return max(firstWeight, float64(now-t.back)/float64(SlowStart))
}

// eject leaves a target out, and returns for how long; 0: it is not.
func (p *Pool) eject(t *target, now time.Duration) time.Duration {
	if t.state == up && len(p.targets)-len(p.down)-len(p.dead) <= 1 {
		p.reopen()
		return 0
	}
	d := min(firstEjection<<min(t.ejections, 10), longestEjection)
	d = d*3/4 + time.Duration(p.config.Random()%uint64(d/2)) // a quarter less or more, so that those that fail together are not tried together
	p.unlist(t)
	t.state, t.until, t.trial, t.back = down, now+d, false, never
	t.ejections++
	p.list(t)
	p.schedule()
	return d
}

// reopen takes all targets back at once.
func (p *Pool) reopen() {
	for len(p.down) > 0 {
		t := p.down[len(p.down)-1].target
		p.unlist(t)
		t.state, t.trial, t.back = up, false, never
		p.list(t)
	}
	for _, t := range p.targets {
		t.failures, t.ejections = [failureKinds]int{}, 0
	}
	p.schedule()
}

// takeBack has a target begin anew, with a small weight.
func (p *Pool) takeBack(t *target, now time.Duration) {
	p.unlist(t)
	t.state, t.trial = up, false
	p.beginSlowly(t, now)
	p.list(t)
	p.schedule()
}

// schedule says when the next trial may be.
func (p *Pool) schedule() {
	p.nextTrial = never
	for _, t := range p.down {
		if p.worthTrying(t.target) {
			p.nextTrial = min(p.nextTrial, t.next())
		}
	}
}

// due returns the target whose trial is due for the longest time, or nil.
func (p *Pool) due(now time.Duration) (first *target) {
	for _, t := range p.down {
		if p.worthTrying(t.target) && now >= t.next() && (first == nil || t.until < first.until) {
			first = t.target
		}
	}
	return first
}

// worthTrying tells whether a target that is left out would be picked if it were not.
func (p *Pool) worthTrying(t *target) bool {
	for better := range t.tier {
		if len(p.up[better]) > 0 {
			return false
		}
	}
	return true
}

// next is when a target that is left out may be tried.
func (t *target) next() time.Duration {
	if t.trial {
		return max(t.until, t.patience)
	}
	return t.until
}
