package health_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"varco.dev/internal/backend/health"
)

// model remembers what a backend was told, to judge verdicts by.
type model struct {
	state    health.State
	results  []health.Result // of probes and of sessions that were refused, newest last, since it is in the set
	suspects int             // what sessions saw since the last answer
	ready    bool            // its newest answer was Ready
}

// TestMachineAtRandom lets anything happen, and checks what must hold whatever does.
func TestMachineAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		letters := "abcdef"[:1+r.IntN(6)]
		policy := health.Policy{Fall: 1 + r.IntN(4), Rise: 1 + r.IntN(4)}
		s := newScript(letters, policy)
		models := map[netip.AddrPort]*model{}
		for _, addr := range backendsOf(letters) {
			models[addr] = &model{}
		}
		mood := health.Ready
		for range 1000 {
			s.now = s.now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
			addr := backendOf(letters[r.IntN(len(letters))])
			mood = somethingOf(r, mood)
			s.happen(r, addr, mood, models)
			check(t, s, models, policy)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// somethingOf returns a result that is often like the one before, so that there are runs.
func somethingOf(r *rand.Rand, mood health.Result) health.Result {
	switch r.IntN(4) {
	case 0:
		return health.Result(r.IntN(int(health.Refused) + 1))
	case 1:
		return health.Ready
	}
	return mood
}

// happen has a backend probed, or a session report.
func (s *script) happen(r *rand.Rand, addr netip.AddrPort, result health.Result, models map[netip.AddrPort]*model) {
	m := models[addr]
	switch r.IntN(6) {
	case 0:
		s.bytes[addr] = s.now
	case 1:
		s.m.Passive(addr, result, s.now)
		if result == health.Refused {
			m.results = append(m.results, result)
		}
		m.suspects++
	default:
		s.m.Observe(addr, health.Observation{Result: result, LastByte: s.bytes[addr]}, s.now)
		if result == health.Alive && anotherReady(models, m) {
			result = health.Red
		}
		if lives(result) {
			m.suspects, m.ready = 0, result == health.Ready
		}
		if result != health.Unknown {
			m.results = append(m.results, result)
		}
	}
}

func check(t *testing.T, s *script, models map[netip.AddrPort]*model, p health.Policy) {
	t.Helper()
	all := s.m.Verdicts()
	usable, better := 0, 0
	for _, v := range all {
		if v.Usable() {
			usable++
		}
		if v.State == health.Up && v.Proven || v.State == health.Draining && v.Open {
			better++
		}
	}
	if usable == 0 {
		t.Errorf("none is usable: %s", verdicts(all))
	}
	for _, v := range all {
		if v.Cut && (v.State != health.Down || better == 0) {
			t.Errorf("cut without a better one, or not down: %s", verdicts(all))
		}
		if v.Cut && v.Open {
			t.Errorf("cut and open: %s", verdicts(all))
		}
		models[v.Addr].check(t, v, p)
	}
}

func anotherReady(models map[netip.AddrPort]*model, but *model) bool {
	for _, m := range models {
		if m != but && m.ready && m.state == health.Up {
			return true
		}
	}
	return false
}

func good(r health.Result) bool { return r == health.Ready || r == health.Alive }

func lives(r health.Result) bool {
	return good(r) || r == health.Red || r == health.Slow || r == health.Untrusted
}

// inARow returns how many of the newest results are of a kind.
func (m *model) inARow(kind func(health.Result) bool) (n int) {
	for i := len(m.results) - 1; i >= 0 && kind(m.results[i]); i-- {
		n++
	}
	return n
}

// check wants states to change no faster than the policy allows, and no slower.
func (m *model) check(t *testing.T, v health.Verdict, p health.Policy) {
	t.Helper()
	before := m.state
	m.state = v.State
	answers, fine := m.inARow(lives), m.inARow(good)
	failures := m.inARow(func(r health.Result) bool { return !lives(r) })
	if fine >= p.Rise && v.State != health.Up {
		t.Errorf("%d good answers, and it is %v", fine, v.State)
	}
	if len(m.results) == 0 {
		return
	}
	last := m.results[len(m.results)-1]
	switch {
	case before == v.State:
	case before == health.Down && answers < p.Rise:
		t.Errorf("%v after %d answers, want %d", v.State, answers, p.Rise)
	case before == health.Down && v.State == health.Up && fine < p.Rise:
		t.Errorf("%v after %d good answers, want %d", v.State, fine, p.Rise)
	case v.State == health.Up && fine == 0:
		t.Errorf("up after %v", last)
	case v.State == health.Down && last != health.Refused && failures+min(m.suspects, failures) < p.Fall:
		t.Errorf("down after %d failures and %d of sessions, want %d", failures, m.suspects, p.Fall)
	case v.State == health.Down && lives(last):
		t.Errorf("down after %v", last)
	}
}
