package backend

import (
	"net/netip"
	"time"
)

// newTarget returns a target that the pool did not have; others tells whether it had any.
func (p *Pool) newTarget(addr netip.AddrPort, others bool) *target {
	t := &target{addr: addr, host: addr.String(), hash: hashAddrPort(addr), state: up, pass: p.lead, back: never}
	if p.config.Least && others {
		t.tier = draining // as far as it is known: it begins slowly
	}
	return t
}

// assess takes over what others know of a target.
func (p *Pool) assess(t *target, want Target, now time.Duration) {
	was, again := t.tier, false
	t.tier = tierOf(want)
	if !want.Since.IsZero() {
		again = !t.since.IsZero() && !want.Since.Equal(t.since)
		t.since = want.Since
	}
	switch {
	case want.Down:
		t.state, t.trial, t.back = dead, false, never
	case t.state == dead:
		t.state, t.ejections, t.failures = up, 0, [failureKinds]int{}
		p.beginSlowly(t, now)
	case again, p.config.Least && was == draining && t.tier != draining:
		p.beginSlowly(t, now)
	}
}

// beginSlowly has a target begin with a small weight.
func (p *Pool) beginSlowly(t *target, now time.Duration) {
	t.back = now
	t.pass = max(t.pass, p.lead) // nothing is owed to it
}

func tierOf(t Target) tier {
	switch {
	case t.Draining:
		return draining
	case t.Preferred:
		return preferred
	}
	return ordinary
}
