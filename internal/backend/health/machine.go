package health

import (
	"net/netip"
	"time"
)

// The defaults of Policy.
const (
	DefaultFall    = 2
	DefaultRise    = 2
	DefaultWindow  = 10 * time.Second
	DefaultSteady  = time.Minute
	DefaultRefused = 5 * time.Second
	DefaultPrompt  = DefaultTimeout / 2
	DefaultRecent  = DefaultInterval * 3 / 2
)

// Policy is how many results decide.
type Policy struct {
	Fall    int           // failures in a row until Down, and late answers until Draining; default DefaultFall
	Rise    int           // answers in a row from Down to Up; default DefaultRise
	Window  time.Duration // backends that turned red within it did so together; default DefaultWindow
	Steady  time.Duration // they are believed after so long, if another one was Up all the time; default DefaultSteady
	Refused time.Duration // sessions are cut if it is refused, and no byte came, for so long; default DefaultRefused
	Prompt  time.Duration // sessions are cut only if another one answers within it; default: half of Config.Timeout, DefaultPrompt
	Recent  time.Duration // and did so at most so long before the trouble began; default: 3/2 of Config.Interval, DefaultRecent
}

func (p Policy) withDefaults() Policy {
	return Policy{
		Fall: or(p.Fall, DefaultFall), Rise: or(p.Rise, DefaultRise),
		Window: or(p.Window, DefaultWindow), Steady: or(p.Steady, DefaultSteady), Refused: or(p.Refused, DefaultRefused),
		Prompt: or(p.Prompt, DefaultPrompt), Recent: or(p.Recent, DefaultRecent),
	}
}

func or[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Machine turns results into verdicts. It is pure: it reads no clock and starts nothing. It is not safe for concurrent use.
//
//	new: Up, not proven                 Red or Untrusted: at once
//	         │                          Slow: Fall in a row
//	         ▼                          Fall failures in a row, with a byte from it since the first
//	    ┌─────────┐ ─────────────────────────────────────────────────────────────► ┌────────────┐
//	    │   Up    │                                                                │  Draining  │
//	    └─────────┘ ◄───────────────────────────────────────────────────────────── └────────────┘
//	      ▲     │                       Ready or Alive: once                         │        ▲
//	      │     │                                                                    │        │
//	      │     │   Refused: at once, cut when refused and without a byte for 5 s    │        │ Rise answers in a row,
//	      │     │   Fall failures in a row without a byte from it: cut               │        │ the last Rise not all
//	      │     ▼                                                                    ▼        │ Ready or Alive
//	      │   ┌───────────────────────────────────────────────────────────────────────────┐   │
//	      └── │                                   Down                                    │ ──┘
//	 Rise     └───────────────────────────────────────────────────────────────────────────┘
//	 times Ready or Alive in a row
//
// Failures are Late, Hung, Broken and Unreachable; a Late alone never makes it Down, as what follows on a new connection
// decides. What sessions saw (Passive) is one failure more for the next probe that fails, and nothing without one: a single bad
// client must not take a backend out. Only Refused is beyond a client's power, and counts by itself.
//
// Alive is Red if another backend is Ready to the same credentials: an API server that starts answers 403 to everybody until it
// has read who may do what, and one whose clock is wrong 401.
//
// Over it all lies what keeps a fault of the health check from being an outage:
//
//	all are Down                                      all are Open, and none is cut: there is nowhere better to go
//	none is Up                                        those that drain are Open
//	more than half of those that are not Down         those are Open: more likely it is what they all depend on,
//	  turned from Up to Draining within Window          such as etcd, and the rest could not bear the load; but
//	                                                    that would have the others turn as well, so they are
//	                                                    believed when one was Up for Steady meanwhile
//
// A session is only cut if another backend has answered and is Up or Open. They are not cut while the newest answer of that one
// was not prompt, or is older than the trouble: if all are overloaded, cutting one would have its clients come to the others.
type Machine struct {
	policy   Policy
	backends map[netip.AddrPort]*record
}

// NewMachine returns a machine without backends.
func NewMachine(p Policy) *Machine {
	return &Machine{policy: p.withDefaults(), backends: map[netip.AddrPort]*record{}}
}

// Set has the machine know these backends and no others; what it knows of those that stay is kept.
func (m *Machine) Set(addrs []netip.AddrPort, now time.Time) {
	old := m.backends
	m.backends = make(map[netip.AddrPort]*record, len(addrs))
	for _, addr := range addrs {
		r := old[addr]
		if r == nil {
			r = &record{policy: &m.policy, since: now, reason: "not probed yet"}
		}
		m.backends[addr] = r
	}
	m.settle()
}

// Observation is what a probe found.
type Observation struct {
	Result   Result
	Detail   string        // for people: the status, the error
	Latency  time.Duration // of an answer
	LastByte time.Time     // when a byte last came from the backend on any session; zero: never
}

// Observe counts the result of a probe, and tells whether verdicts may be different now, not counting what is only for people. Of
// backends that are not in the set it does nothing.
func (m *Machine) Observe(addr netip.AddrPort, o Observation, now time.Time) (changed bool) {
	r := m.backends[addr]
	if r == nil {
		return false
	}
	before := r.essence()
	if o.Result == Alive && m.any(r, func(other *record) bool { return other.state == Up && other.ready }) {
		o.Result, o.Detail = Red, o.Detail+", while others are ready"
	}
	switch {
	case o.Result == Unknown:
		r.reason = o.Detail
	case o.Result.alive():
		r.answered(o, now)
	case o.Result == Refused:
		r.refused(o.Detail, now)
		r.dead = r.dead || r.silent(o, now)
	default:
		r.failed(o, now)
	}
	if !r.fell.IsZero() && now.Sub(r.fell) >= m.policy.Steady && m.any(r, func(other *record) bool { return other.steady(now) }) {
		r.fell = time.Time{}
	}
	return m.settle() || r.essence() != before
}

// any tells whether there is another backend of this kind.
func (m *Machine) any(but *record, kind func(*record) bool) bool {
	for _, r := range m.backends {
		if r != but && kind(r) {
			return true
		}
	}
	return false
}

// Passive counts what a session met with: Refused, Unreachable, Hung or Broken. It returns what Observe does.
func (m *Machine) Passive(addr netip.AddrPort, result Result, now time.Time) (changed bool) {
	r := m.backends[addr]
	if r == nil {
		return false
	}
	before := r.essence()
	switch result {
	case Refused:
		r.refused("connection refused", now)
	case Unreachable, Hung, Broken:
		r.suspected = now
	}
	return m.settle() || r.essence() != before
}

// alive tells whether the backend has answered in any way.
func (r Result) alive() bool { return r >= Ready && r <= Untrusted }
