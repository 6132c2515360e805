package health_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/backend/health"
)

// script drives a machine with steps such as "a=ready" (a probe), "a-ready" (one that was not prompt), "a~hung" (what a session saw), "a!" (a byte from it), "+2s"
// and "set:ab" (the set).
type script struct {
	m     *health.Machine
	now   time.Time
	bytes map[netip.AddrPort]time.Time
}

func backendOf(letter byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, letter - 'a' + 1}), 6443)
}

func backendsOf(letters string) (out []netip.AddrPort) {
	for i := range len(letters) {
		out = append(out, backendOf(letters[i]))
	}
	return out
}

func newScript(letters string, p health.Policy) *script {
	s := &script{m: health.NewMachine(p), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), bytes: map[netip.AddrPort]time.Time{}}
	s.m.Set(backendsOf(letters), s.now)
	return s
}

func (s *script) run(t *testing.T, steps string) {
	t.Helper()
	for step := range strings.FieldsSeq(steps) {
		if d, err := time.ParseDuration(strings.TrimPrefix(step, "+")); err == nil {
			s.now = s.now.Add(d)
			continue
		}
		if set, ok := strings.CutPrefix(step, "set:"); ok {
			s.m.Set(backendsOf(set), s.now)
			continue
		}
		s.step(t, backendOf(step[0]), step[1:2], step[2:])
	}
}

func (s *script) step(t *testing.T, addr netip.AddrPort, how, result string) {
	t.Helper()
	latency := time.Duration(0)
	switch how {
	case "!":
		s.bytes[addr] = s.now
	case "~":
		s.m.Passive(addr, resultOf(t, result), s.now)
	case "-":
		latency = health.DefaultPrompt + time.Millisecond
		fallthrough
	case "=":
		s.m.Observe(addr, health.Observation{Result: resultOf(t, result), Detail: result, Latency: latency, LastByte: s.bytes[addr]}, s.now)
	default:
		t.Fatalf("no such step: %v %s %s", addr, how, result)
	}
}

func resultOf(t *testing.T, s string) health.Result {
	t.Helper()
	for r := health.Unknown; r <= health.Refused; r++ {
		if r.String() == s {
			return r
		}
	}
	t.Fatalf("no such result: %s", s)
	return 0
}

// verdicts returns them such as "a:Up b:Up? c:Down,cut d:Draining,open"; "?" is for what is not proven.
func verdicts(all []health.Verdict) string {
	var out []string
	for _, v := range all {
		s := fmt.Sprintf("%c:%v", 'a'+v.Addr.Addr().As4()[3]-1, v.State)
		if !v.Proven && v.State == health.Up {
			s += "?"
		}
		if v.Open {
			s += ",open"
		}
		if v.Cut {
			s += ",cut"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

const allReady = "a=ready b=ready c=ready +1s "

func TestMachine(t *testing.T) {
	tests := []struct{ name, steps, want string }{
		{"new ones are up for want of knowledge", "", "a:Up? b:Up? c:Up?"},
		{"one answer proves", "a=ready", "a:Up b:Up? c:Up?"},
		{"401 as well", "a=alive b=alive", "a:Up b:Up c:Up?"},
		{"401 where another one is ready is one that starts", allReady + "a=refused a=alive a=alive", "a:Draining b:Up c:Up"},
		{"and is red as one that was up", allReady + "a=alive", "a:Draining b:Up c:Up"},
		{"but not if none is ready any more", allReady + "b=alive c=alive b=hung b=hung c=hung c=hung a=alive", "a:Up b:Down,cut c:Down,cut"},
		{"nor if the one that was is not up", allReady + "b=hung b=hung c=red a=alive", "a:Up b:Down,cut c:Draining"},
		{"nor of itself", "set:a a=ready a=alive", "a:Up"},
		{"our own fault says nothing", "a=unknown a=unknown a=unknown", "a:Up? b:Up? c:Up?"},
		{"our own fault keeps what was known", allReady + "a=red a=unknown", "a:Draining b:Up c:Up"},

		{"red drains at once", allReady + "a=red", "a:Draining b:Up c:Up"},
		{"an untrusted certificate drains at once", allReady + "a=untrusted", "a:Draining b:Up c:Up"},
		{"a new one that is red drains", "b=ready c=ready a=red", "a:Draining b:Up c:Up"},
		{"a late answer is chance", allReady + "a=late a=slow", "a:Up b:Up c:Up"},
		{"two are not", allReady + "a=late a=slow a=late a=slow", "a:Draining b:Up c:Up"},
		{"two with a good one between are", allReady + "a=slow a=ready a=slow", "a:Up b:Up c:Up"},
		{"two with a failure between are as well", allReady + "a=slow a=hung a=slow", "a:Up b:Up c:Up"},
		{"slow never makes down", allReady + "a=late a=slow +1s a=late a=slow +1s a=late a=slow a=late", "a:Draining b:Up c:Up"},
		{"one good answer ends draining", allReady + "a=red a=red a=ready", "a:Up b:Up c:Up"},
		{"401 does as well", "a=alive b=alive c=alive a=red a=alive", "a:Up b:Up c:Up"},

		{"one failure is chance", allReady + "a=hung", "a:Up b:Up c:Up"},
		{"a failed request and a failed handshake are two", allReady + "a=late +1.5s a=hung", "a:Down,cut b:Up c:Up"},
		{"late ones alone are nothing", allReady + "a=late a=late a=late", "a:Up b:Up c:Up"},
		{"two handshakes", allReady + "a=hung a=hung", "a:Down,cut b:Up c:Up"},
		{"no answer to a SYN", allReady + "a=unreachable a=unreachable", "a:Down,cut b:Up c:Up"},
		{"failures of two kinds", allReady + "a=unreachable a=hung", "a:Down,cut b:Up c:Up"},
		{"two with an answer between are chance", allReady + "a=hung a=red a=ready a=hung", "a:Up b:Up c:Up"},
		{"draining, then dead", allReady + "a=red a=hung a=hung", "a:Down,cut b:Up c:Up"},
		{"a byte since the first failure", allReady + "a=late +1s a! +1s a=hung", "a:Draining b:Up c:Up"},
		{"a byte before the first failure", allReady + "a! +1ms a=late +1.5s a=hung", "a:Down,cut b:Up c:Up"},
		{"bytes, then none", allReady + "a=late +1s a! +1s a=hung +1s b=ready a=hung +1s a=hung", "a:Down,cut b:Up c:Up"},
		{"bytes all the time", allReady + "a=late +1s a! +1s a=hung +1s a=hung +1s a! a=hung +1s a=hung +1s a! +1s a=hung", "a:Draining b:Up c:Up"},
		{"bytes of another one", allReady + "a=late +1s b! +1s a=hung", "a:Down,cut b:Up c:Up"},
		{"bytes after all: not to be cut", allReady + "a=hung +1s a=hung +1s a! +1s a=hung", "a:Down b:Up c:Up"},

		{"closed before an answer: down, its kernel ends sessions", allReady + "a=broken +1s a=broken", "a:Down b:Up c:Up"},
		{"and if that does not, we do", allReady + "a=broken +1s a=broken +4s a=broken", "a:Down,cut b:Up c:Up"},
		{"refused is down at once, and not cut", allReady + "a=refused", "a:Down b:Up c:Up"},
		{"refused for long without a byte is cut", allReady + "a=refused +5s a=refused", "a:Down,cut b:Up c:Up"},
		{"refused for a little less", allReady + "a=refused +4999ms a=refused", "a:Down b:Up c:Up"},
		{"refused for long, still finishing", allReady + "a=refused +3s a! +3s a=refused", "a:Down b:Up c:Up"},
		{"refused, and finished", allReady + "a=refused +3s a! +5s a=refused", "a:Down,cut b:Up c:Up"},
		{"refused, then dead", allReady + "a=refused +1s a=unreachable", "a:Down,cut b:Up c:Up"},

		{"one answer does not end down", allReady + "a=hung a=hung a=ready", "a:Down b:Up c:Up"},
		{"two do", allReady + "a=hung a=hung a=ready a=ready", "a:Up b:Up c:Up"},
		{"in a row", allReady + "a=hung a=hung a=ready a=hung a=ready", "a:Down b:Up c:Up"},
		{"a red one and a good one", allReady + "a=refused a=red a=ready", "a:Draining b:Up c:Up"},
		{"a red one and two good ones", allReady + "a=refused a=red a=ready a=ready", "a:Up b:Up c:Up"},
		{"one red answer does not end down", allReady + "a=refused a=red", "a:Down b:Up c:Up"},
		{"a starting server", allReady + "a=refused a=red a=red a=red", "a:Draining b:Up c:Up"},
		{"one that came back can fall again", allReady + "a=refused a=ready a=ready a=refused", "a:Down b:Up c:Up"},

		{"a session alone says nothing", allReady + "a~hung a~hung a~hung a~broken a~unreachable", "a:Up b:Up c:Up"},
		{"a session and a probe", allReady + "a~hung +1s b=ready a=hung", "a:Down,cut b:Up c:Up"},
		{"many sessions count once", allReady + "a~broken a~broken a=ready a~broken a=late", "a:Up b:Up c:Up"},
		{"a session and a late answer", allReady + "a~hung a=late a=slow", "a:Up b:Up c:Up"},
		{"a session long ago", allReady + "a~hung +3.1s a=hung", "a:Up b:Up c:Up"},
		{"a session that a probe refutes", allReady + "a~hung a=ready a=hung", "a:Up b:Up c:Up"},
		{"refused of a session is that of a probe", allReady + "a~refused", "a:Down b:Up c:Up"},
		{"refused of sessions for long does not cut", allReady + "a~refused +9s a~refused", "a:Down b:Up c:Up"},
		{"refused of a session, then good ones", allReady + "a~refused a=ready a=ready", "a:Up b:Up c:Up"},

		{"none is up: open", allReady + "a=red +20s b=red +20s c=red", "a:Draining,open b:Draining,open c:Draining,open"},
		{"one comes back: closed again", allReady + "a=red +20s b=red +20s c=red c=ready", "a:Draining b:Draining c:Up"},
		{"two of three turn together", allReady + "a=red +10s b=red", "a:Draining,open b:Draining,open c:Up"},
		{"nearly a minute later", allReady + "a=red b=red c=ready +59s a=red b=red c=ready", "a:Draining,open b:Draining,open c:Up"},
		{"a minute later, and the third was up all the time", allReady + "a=red b=red +60s a=red b=red c=ready", "a:Draining b:Draining c:Up"},
		{"it was not", allReady + "a=red b=red +1s c=red +1s c=ready +59s a=red b=red", "a:Draining,open b:Draining,open c:Up"},
		{"but is now", allReady + "a=red b=red +1s c=red +1s c=ready +60s a=red b=red", "a:Draining b:Draining c:Up"},
		{"then that one turns red", allReady + "a=red b=red +60s a=red b=red c=red", "a:Draining,open b:Draining,open c:Draining,open"},
		{"then they are back, and turn again", allReady + "a=red b=red +60s a=red b=red a=ready b=ready +1s a=red b=red", "a:Draining,open b:Draining,open c:Up"},
		{"the third is not known to be up", "set:ab a=ready b=ready set:abc a=red b=red +60s a=red b=red", "a:Draining,open b:Draining,open c:Up?"},
		{"two of three, not together", allReady + "a=red +10001ms b=red", "a:Draining b:Draining c:Up"},
		{"one of two that are left", allReady + "c=hung c=hung a=red", "a:Draining b:Up c:Down,cut"},
		{"the other one as well", allReady + "c=hung c=hung a=red +60s b=red", "a:Draining,open b:Draining,open c:Down,cut"},
		{"those that were never up did not turn", "a=red b=red c=ready", "a:Draining b:Draining c:Up"},
		{"nor those that come from down", allReady + "a=refused b=refused a=red a=red b=red b=red", "a:Draining b:Draining c:Up"},
		{"all certificates expired", allReady + "a=untrusted b=untrusted c=untrusted", "a:Draining,open b:Draining,open c:Draining,open"},
		{"all are down: open, none is cut", allReady + "a=hung b=hung c=hung a=hung b=hung c=hung", "a:Down,open b:Down,open c:Down,open"},
		{"all were down, one answers", allReady + "a=hung b=hung c=hung a=hung b=hung c=hung b=red b=red", "a:Down,cut b:Draining,open c:Down,cut"},
		{"two of three", allReady + "a=hung b=hung c=ready a=hung b=hung", "a:Down,cut b:Down,cut c:Up"},
		{"nor if their newest answer is older than the failure", allReady + "+1s a=hung a=hung", "a:Down b:Up c:Up"},
		{"then a new one comes", allReady + "+1s a=hung a=hung b=ready", "a:Down,cut b:Up c:Up"},
		{"nobody is cut while the others are slow", allReady + "b-ready c-ready a=hung a=hung", "a:Down b:Up c:Up"},
		{"nor if their newest answer is late", allReady + "b=late c=late a=hung a=hung", "a:Down b:Up c:Up"},
		{"one that is not slow is enough", allReady + "b-ready c=ready a=hung a=hung", "a:Down,cut b:Up c:Up"},
		{"when they are not any more", allReady + "b-ready c-ready a=hung a=hung b=ready", "a:Down,cut b:Up c:Up"},
		{"cut is cut, even if they are slow then", allReady + "a=hung a=hung b-ready c-ready", "a:Down,cut b:Up c:Up"},
		{"the last one is never cut", "set:a a=ready a=hung a=hung", "a:Down,open"},
		{"nor if the others are not known", "set:ab a=ready a=hung a=hung", "a:Down b:Up?"},
		{"nor if another one is down", "set:ab a=ready a=hung a=hung b=refused", "a:Down,open b:Down,open"},
		{"cut for one that is red but open", "set:ab a=ready b=red a=hung a=hung", "a:Down,cut b:Draining,open"},

		{"what stays is kept", allReady + "a=hung a=hung set:ad", "a:Down d:Up?"},
		{"what comes again is new", allReady + "a=hung a=hung set:bc set:abc", "a:Up? b:Up c:Up"},
		{"what is gone says nothing", allReady + "set:bc a=refused a~refused", "b:Up c:Up"},
		{"an empty set", "set:", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScript("abc", health.Policy{})
			s.run(t, test.steps)
			if got := verdicts(s.m.Verdicts()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestMachineTogether has five, of which three turn red, and two others did long before.
func TestMachineTogether(t *testing.T) {
	tests := []struct{ name, steps, want string }{
		{"only those that turned together", "a=red +60s b=red c=red d=red", "a:Draining b:Draining,open c:Draining,open d:Draining,open e:Up"},
		{"a chain that is longer than the window", "a=red +6s b=red +6s c=red +6s d=red", "a:Draining b:Draining c:Draining d:Draining e:Up"},
		{"two of five", "a=red b=red", "a:Draining b:Draining c:Up d:Up e:Up"},
		{"three, then one is back", "a=red b=red c=red +30s c=ready", "a:Draining b:Draining c:Up d:Up e:Up"},
		{"two of three that are reachable", "a=refused b=refused c=red d=red", "a:Down b:Down c:Draining,open d:Draining,open e:Up"},
	}
	for _, test := range tests {
		s := newScript("abcde", health.Policy{})
		s.run(t, "a=ready b=ready c=ready d=ready e=ready +1s "+test.steps)
		if got := verdicts(s.m.Verdicts()); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestMachinePolicy(t *testing.T) {
	tests := []struct {
		name        string
		policy      health.Policy
		steps, want string
	}{
		{"fall", health.Policy{Fall: 4}, "a=late a=hung a=late", "a:Up b:Up c:Up"},
		{"fall at last", health.Policy{Fall: 4}, "a=late a=hung a=late a=hung", "a:Down,cut b:Up c:Up"},
		{"fall of one", health.Policy{Fall: 1}, "a=hung", "a:Down,cut b:Up c:Up"},
		{"rise", health.Policy{Rise: 3}, "a=refused a=ready a=ready", "a:Down b:Up c:Up"},
		{"rise at last", health.Policy{Rise: 3}, "a=refused a=ready a=ready a=ready", "a:Up b:Up c:Up"},
		{"steady", health.Policy{Steady: 5 * time.Second}, "a=red b=red +5s a=red b=red", "a:Draining b:Draining c:Up"},
		{"window", health.Policy{Window: time.Minute}, "a=red +60s b=red", "a:Draining,open b:Draining,open c:Up"},
		{"refused", health.Policy{Refused: time.Minute}, "a=refused +59s a=refused", "a:Down b:Up c:Up"},
	}
	for _, test := range tests {
		s := newScript("abc", test.policy)
		s.run(t, allReady+test.steps)
		if got := verdicts(s.m.Verdicts()); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

// TestVerdict looks at what is for people.
func TestVerdict(t *testing.T) {
	s := newScript("ab", health.Policy{})
	began := s.now
	s.run(t, "b=ready +3s")
	s.m.Observe(backendOf('a'), health.Observation{Result: health.Red, Detail: "etcd failed", Latency: 7 * time.Millisecond}, s.now)
	s.run(t, "+1s b=ready")
	s.m.Observe(backendOf('a'), health.Observation{Result: health.Red, Detail: "ping failed", Latency: 8 * time.Millisecond}, s.now)
	got := s.m.Verdicts()[0]
	want := health.Verdict{
		Addr: backendOf('a'), State: health.Draining, Since: began.Add(3 * time.Second), Last: health.Red, Reason: "ping failed",
		Latency: 8 * time.Millisecond,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.Usable() {
		t.Error("it counts as usable")
	}
}

func TestObserveTellsChanges(t *testing.T) {
	s := newScript("ab", health.Policy{})
	at := func(r health.Result) bool {
		return s.m.Observe(backendOf('a'), health.Observation{Result: r}, s.now)
	}
	for i, step := range []struct {
		result health.Result
		want   bool
	}{
		{health.Ready, true}, {health.Ready, false}, {health.Late, false}, {health.Hung, true}, {health.Hung, false},
		{health.Ready, false}, {health.Ready, true}, {health.Unknown, false}, {health.Red, true}, {health.Untrusted, false},
	} {
		if got := at(step.result); got != step.want {
			t.Errorf("step %d, %v: changed is %v", i, step.result, got)
		}
	}
	if s.m.Passive(backendOf('a'), health.Hung, s.now) || !s.m.Passive(backendOf('a'), health.Refused, s.now) {
		t.Error("of sessions only refused changes something at once")
	}
}
