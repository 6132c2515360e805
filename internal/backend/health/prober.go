package health

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"
)

const (
	// leastGap is the least time between the starts of two probes of a backend, however much sessions report.
	leastGap = 200 * time.Millisecond
	// jitter is by which part an interval is longer or shorter, so that many nodes do not probe together.
	jitter = 0.2
	// mostLate is how late our own timer may be for a timeout to say something about a backend. If it is later this host is busy,
	// and the answer may be here and wait like us.
	mostLate = 250 * time.Millisecond
	// mostRepeats is how often in a row a timeout is not believed, so that a host that is always busy still finds out.
	mostRepeats = 3
)

// prober probes one backend.
type prober struct {
	checker *Checker
	config  *Config
	addr    netip.AddrPort
	host    string        // addr as text
	kick    chan struct{} // holds one: probe at once

	// The rest belongs to run.
	client
	trouble string // the last one of ours that was logged
}

func newProber(c *Checker, addr netip.AddrPort) *prober {
	return &prober{checker: c, config: &c.config, addr: addr, host: addr.String(), kick: make(chan struct{}, 1)}
}

// run probes until the context ends.
func (p *prober) run(ctx context.Context) {
	defer p.hangUp()
	planned, start := time.Now(), time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.kick:
			if !p.rest(ctx, start.Add(leastGap)) {
				return
			}
			p.hangUp() // whether a new connection can be made is the question
			planned = time.Now()
		}
		start = time.Now()
		p.probe(ctx, start.Sub(planned) > mostLate)
		planned = p.next(start, time.Now())
		timer.Reset(time.Until(planned))
	}
}

// next returns when the next probe is due.
func (p *prober) next(start, end time.Time) time.Time {
	due := start.Add(time.Duration(float64(p.config.Interval) * (1 - jitter + 2*jitter*p.config.Random())))
	if soon := end.Add(leastGap); due.Before(soon) {
		return soon
	}
	return due
}

// rest waits, and tells whether to go on.
func (p *prober) rest(ctx context.Context, until time.Time) bool {
	d := time.Until(until)
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// probe asks the backend once, and if it fails in a way that may be chance once more on a new connection; both count.
func (p *prober) probe(ctx context.Context, late bool) {
	start := time.Now()
	a := p.fairly(ctx, p.config.Timeout, late)
	if !p.tell(ctx, a) || a.Result.alive() || a.Result == Refused || a.Result == Unknown {
		return
	}
	if !p.rest(ctx, start.Add(leastGap)) { // two failures in one moment are one
		return
	}
	a = p.fairly(ctx, p.config.Handshake, false)
	if a.Result == Late {
		a.Result = Slow
	}
	p.tell(ctx, a)
}

// tell hands over a result, unless it is that of the context's end.
func (p *prober) tell(ctx context.Context, a answer) bool {
	if ctx.Err() != nil {
		return false
	}
	p.checker.observe(p, a.Observation)
	return true
}

// fairly tries until there is a result that this host has no part in. late tells that the first try began late.
func (p *prober) fairly(ctx context.Context, connect time.Duration, late bool) answer {
	for range mostRepeats {
		a := p.try(ctx, connect)
		if !a.timeout || a.overdue <= mostLate && !late || ctx.Err() != nil {
			return a
		}
		late = false
	}
	return p.try(ctx, connect)
}

// try asks on the connection that is kept, or else on a new one. That a kept one has been closed is no failure: servers may do
// so at any time.
func (p *prober) try(ctx context.Context, connect time.Duration) answer {
	config, err := p.prepare(ctx)
	if err != nil {
		return p.ours(err)
	}
	p.trouble = ""
	if p.link != nil {
		if a, stale := p.ask(p.config.Timeout); !stale {
			return p.renew(ctx, config, a)
		}
	}
	if a, ok := p.connect(ctx, config, connect); !ok {
		return a
	}
	a, _ := p.ask(p.config.Timeout)
	return a
}

// renew makes a new connection if it is time to, and the kept one has just brought an answer: that and what comes of the new one
// are the result. Where it takes too long the backend is alive all the same, and the kept one stays.
func (p *prober) renew(ctx context.Context, config *tls.Config, a answer) answer {
	old := p.link
	if old == nil || !a.Result.alive() || time.Now().Before(old.until) {
		return a
	}
	p.link = nil
	fresh, ok := p.connect(ctx, config, p.config.Timeout)
	switch {
	case ok:
		old.close()
		return a
	case fresh.Result == Unknown:
		p.link = old
		return a
	case fresh.timeout:
		p.link = old
		fresh.Result, fresh.Latency = Slow, a.Latency
		return fresh
	}
	old.close()
	return fresh
}

// ours returns the result of a fault of our own, and logs it once.
func (p *prober) ours(err error) answer {
	detail := "cannot be probed: " + err.Error()
	if p.trouble != detail {
		p.trouble = detail
		p.config.Log.Warn("backend cannot be probed", "backend", p.host, "error", err)
	}
	return answer{Observation: Observation{Result: Unknown, Detail: detail}}
}
