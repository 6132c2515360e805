package health

import "time"

// suspectFor is how long what sessions saw is worth a failure: it must have to do with the probe that comes at once after it,
// which takes DefaultTimeout and DefaultHandshake at most.
const suspectFor = 3 * time.Second

// record is what is known of a backend.
type record struct {
	policy  *Policy
	state   State
	since   time.Time
	reason  string
	proven  bool
	ready   bool      // the newest answer was Ready
	prompt  bool      // the newest probe was answered within Policy.Prompt
	heard   time.Time // when the newest answer came
	last    Result
	latency time.Duration

	answers, good int       // in a row: of any kind, and Ready or Alive
	slow          int       // in a row, but for what is Late before
	failures      int       // in a row
	failing       time.Time // since when
	refusing      time.Time // since when it is refused; zero: it is not
	suspected     time.Time // when a session last saw something; zero: it does not count any more
	fell          time.Time // when it turned from being known to be Up to Draining; zero: it did not, or so long ago that it is believed
	dead, cut     bool      // its sessions are dead, and are cut for that
}

// essence is what verdicts depend on, but for what Machine.settle decides.
type essence struct {
	State
	proven, fell bool
}

func (r *record) essence() essence {
	return essence{r.state, r.proven, !r.fell.IsZero()}
}

// steady tells whether it is known to have been Up for long.
func (r *record) steady(now time.Time) bool {
	return r.state == Up && r.proven && now.Sub(r.since) >= r.policy.Steady
}

// become changes the state.
func (r *record) become(s State, reason string, now time.Time) {
	r.reason = reason
	if r.state == s {
		return
	}
	r.fell = time.Time{}
	if r.state == Up && s == Draining && r.proven {
		r.fell = now
	}
	r.state, r.since = s, now
}

// answered counts a sign of life.
func (r *record) answered(o Observation, now time.Time) {
	r.last, r.latency = o.Result, o.Latency
	r.failures, r.dead, r.refusing, r.suspected = 0, false, time.Time{}, time.Time{}
	good := o.Result == Ready || o.Result == Alive
	r.ready, r.prompt, r.heard = o.Result == Ready, o.Latency <= r.policy.Prompt, now
	r.answers++
	r.good = countIf(good, r.good)
	r.slow = countIf(o.Result == Slow, r.slow)
	switch {
	case r.state == Down && r.answers < r.policy.Rise:
		r.reason = "it answers again: " + o.Detail
	case good && (r.state != Down || r.good >= r.policy.Rise):
		r.become(Up, o.Detail, now)
	case o.Result == Slow && r.state == Up && r.slow < r.policy.Fall:
	default:
		r.become(Draining, o.Detail, now)
	}
	r.proven = r.proven || good
}

func countIf(ok bool, n int) int {
	if ok {
		return n + 1
	}
	return 0
}

// refused counts that nobody listens. An API server that ends in an orderly way still finishes what it has begun, so that its
// sessions live; if it has died, its kernel ends them.
func (r *record) refused(detail string, now time.Time) {
	r.last = Refused
	r.fails(now)
	if r.refusing.IsZero() {
		r.refusing = now
	}
	r.become(Down, detail, now)
}

// fails counts a failure.
func (r *record) fails(now time.Time) {
	if r.failures == 0 {
		r.failing = now
	}
	r.failures++
	r.answers, r.good, r.prompt = 0, 0, false
}

// silent tells whether it has been refused, and has said nothing on any session, for so long that its sessions are dead.
func (r *record) silent(o Observation, now time.Time) bool {
	began := r.refusing
	if o.LastByte.After(began) {
		began = o.LastByte
	}
	return !r.refusing.IsZero() && now.Sub(began) >= r.policy.Refused
}

// failed counts a failure that may be chance.
func (r *record) failed(o Observation, now time.Time) {
	r.last = o.Result
	r.fails(now)
	if o.Result == Late {
		return
	}
	r.slow = 0
	if !r.suspected.IsZero() && now.Sub(r.suspected) <= suspectFor {
		r.failures++
	}
	r.suspected = time.Time{}
	switch {
	case r.failures < r.policy.Fall:
	case o.LastByte.After(r.failing):
		r.speaks(o, now)
	default:
		r.die(o, now)
	}
}

// speaks counts that sessions get bytes from it while probes fail: it is slow, such as under load, and must not lose them.
func (r *record) speaks(o Observation, now time.Time) {
	r.failures, r.dead = 0, false
	if r.state != Down {
		r.become(Draining, "slow, but alive: "+o.Detail, now)
	}
}

// die has it be down. If connections are closed its kernel is alive, and ends those of a process that is not: then sessions are
// given as long as if it were refused.
func (r *record) die(o Observation, now time.Time) {
	r.become(Down, o.Detail, now)
	if o.Result == Broken && r.refusing.IsZero() {
		r.refusing = r.failing
	}
	r.dead = r.dead || o.Result != Broken || r.silent(o, now)
}
