package backend_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend"
)

func pick(t testing.TB, p *backend.Pool, w backend.Want) backend.Lease {
	t.Helper()
	l, err := p.Pick(w)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// seen returns which targets are picked in a number of requests that all work, in order of their addresses.
func seen(t testing.TB, p *backend.Pool, n int, w backend.Want) []netip.AddrPort {
	t.Helper()
	var out []netip.AddrPort
	for range n {
		l := pick(t, p, w)
		if l.Answered(0); !slices.Contains(out, l.Addr()) {
			out = append(out, l.Addr())
		}
		l.Done()
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

func addrs(n ...int) (out []netip.AddrPort) {
	for _, n := range n {
		out = append(out, addr(n))
	}
	return out
}

// fail has a target fail until it is left out.
func fail(t testing.TB, p *backend.Pool, a netip.AddrPort) {
	t.Helper()
	for before := p.Stats().Ejected; p.Stats().Ejected == before; {
		l := pick(t, p, backend.Want{Stay: a})
		if l.Addr() != a {
			t.Fatalf("%v is not up", a)
		}
		l.Failed(backend.Unreachable)
		l.Done()
	}
}

func TestTiers(t *testing.T) {
	tests := []struct {
		name    string
		targets []backend.Target
		down    []int
		want    []netip.AddrPort
	}{
		{"none is better", targets(3), nil, addrs(0, 1, 2)},
		{"preferred", []backend.Target{{Addr: addr(0)}, {Addr: addr(1), Preferred: true}, {Addr: addr(2), Preferred: true}}, nil, addrs(1, 2)},
		{"one of the preferred is down", []backend.Target{{Addr: addr(0)}, {Addr: addr(1), Preferred: true}, {Addr: addr(2), Preferred: true}}, []int{1}, addrs(2)},
		{"all of the preferred are down", []backend.Target{{Addr: addr(0)}, {Addr: addr(1), Preferred: true}}, []int{1}, addrs(0)},
		{"draining", []backend.Target{{Addr: addr(0), Draining: true}, {Addr: addr(1)}}, nil, addrs(1)},
		{"draining and preferred", []backend.Target{{Addr: addr(0), Draining: true, Preferred: true}, {Addr: addr(1)}}, nil, addrs(1)},
		{"draining as the last", []backend.Target{{Addr: addr(0), Draining: true}, {Addr: addr(1)}}, []int{1}, addrs(0)},
		{"only draining", []backend.Target{{Addr: addr(0), Draining: true}, {Addr: addr(1), Draining: true}}, nil, addrs(0, 1)},
		{"named twice", []backend.Target{{Addr: addr(0)}, {Addr: addr(0)}, {Addr: addr(1)}}, nil, addrs(0, 1)},
	}
	for _, test := range tests {
		for _, keyed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", test.name, keyed), func(t *testing.T) {
				p := backend.NewPool(backend.Config{})
				p.Set(test.targets)
				for _, n := range test.down {
					fail(t, p, addr(n))
				}
				var got []netip.AddrPort
				for key := range uint64(50) {
					for _, a := range seen(t, p, 1, backend.Want{Key: key, Keyed: keyed}) {
						if !slices.Contains(got, a) {
							got = append(got, a)
						}
					}
				}
				slices.SortFunc(got, netip.AddrPort.Compare)
				if !slices.Equal(got, test.want) {
					t.Errorf("got %v, want %v", got, test.want)
				}
			})
		}
	}
}

func TestAvoid(t *testing.T) {
	for n := range 6 {
		p := backend.NewPool(backend.Config{})
		p.Set(targets(n))
		for _, keyed := range []bool{false, true} {
			w := backend.Want{Keyed: keyed, Stay: addr(0)}
			for range n {
				if others := p.Others(w.Avoid); !others {
					t.Errorf("%d of %d are to be avoided, and no other is said to be left", len(w.Avoid), n)
				}
				l := pick(t, p, w)
				l.Done()
				if slices.Contains(w.Avoid, l.Addr()) {
					t.Fatalf("picked %v, which was to be avoided", l.Addr())
				}
				w.Avoid = append(w.Avoid, l.Addr())
			}
			if _, err := p.Pick(w); err != backend.ErrNone || p.Others(w.Avoid) {
				t.Errorf("all %d are to be avoided: got %v", n, err)
			}
		}
	}
}

// TestTrial wants a target that is left out to be tried by one request at a time, after a time that doubles.
func TestTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backend.NewPool(backend.Config{})
		p.Set(targets(10))
		fail(t, p, addr(0))
		longest := time.Duration(0)
		for n := range 9 {
			began := time.Now()
			l := pick(t, p, backend.Want{})
			for l.Addr() != addr(0) {
				l.Answered(0)
				l.Done()
				time.Sleep(50 * time.Millisecond) // time passes, by the test's own clock
				l = pick(t, p, backend.Want{})
			}
			want := min(time.Second<<n, time.Minute)
			if took := time.Since(began); took < want*7/10 || took > want*13/10 {
				t.Errorf("trial %d came after %v, want about %v", n, took, want)
			}
			longest = max(longest, time.Since(began))
			if got := seen(t, p, 100, backend.Want{}); slices.Contains(got, addr(0)) {
				t.Fatal("a second request was sent to a target that is being tried")
			}
			l.Failed(backend.Unreachable)
			l.Done()
		}
		time.Sleep(2 * time.Minute) // it may be tried, by the test's own clock
		if l := pick(t, p, backend.Want{Avoid: addrs(5)}); l.Addr() == addr(0) {
			t.Error("a request that had failed before was sent on trial")
		}
		l := pick(t, p, backend.Want{})
		l.Done() // nothing came of it
		l = pick(t, p, backend.Want{})
		if l.Addr() != addr(0) {
			t.Fatal("after a trial without a result there was no other")
		}
		l.Answered(0)
		l.Done()
		if p.Stats().Ejected != 0 {
			t.Error("it has answered and is still left out")
		}
		l = pick(t, p, backend.Want{Stay: addr(0)})
		l.Failed(backend.Unreachable)
		l.Done()
		if p.Stats().Ejected != 1 {
			t.Error("a target that is only just back was given a second chance")
		}
	})
}

// TestTrialWithoutEnd has a trial that nothing comes of for long, as of a stream that is silent. Another request may try after a
// minute, and the first one's end changes nothing then.
func TestTrialWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backend.NewPool(backend.Config{})
		p.Set(targets(3))
		fail(t, p, addr(0))
		time.Sleep(2 * time.Second) // it may be tried, by the test's own clock
		silent := pick(t, p, backend.Want{})
		if silent.Addr() != addr(0) {
			t.Fatal("nobody tries")
		}
		time.Sleep(59 * time.Second) // not long enough, by the test's own clock
		if got := seen(t, p, 100, backend.Want{}); slices.Contains(got, addr(0)) {
			t.Fatal("a second request tried too early")
		}
		time.Sleep(2 * time.Second) // long enough, by the test's own clock
		l := pick(t, p, backend.Want{})
		if l.Addr() != addr(0) {
			t.Fatal("nobody else tries")
		}
		if got := seen(t, p, 100, backend.Want{}); slices.Contains(got, addr(0)) {
			t.Fatal("a third request tried at once")
		}
		l.Answered(0)
		l.Done()
		silent.Failed(backend.Broken)
		silent.Done()
		if got := p.Stats(); got.Ejected != 0 || got.InFlight != 0 {
			t.Errorf("got %+v, want that it is back", got)
		}
	})
}

// TestStaleAnswer has a target answer a request that was sent before it was left out.
func TestStaleAnswer(t *testing.T) {
	p := backend.NewPool(backend.Config{})
	p.Set(targets(3))
	old := pick(t, p, backend.Want{Stay: addr(0)})
	fail(t, p, addr(0))
	old.Answered(0)
	old.Done()
	if p.Stats().Ejected != 1 {
		t.Error("an answer on an old connection brought it back")
	}
	if got := seen(t, p, 50, backend.Want{}); !slices.Equal(got, addrs(1, 2)) {
		t.Errorf("picked %v", got)
	}
}

func TestFailuresInARow(t *testing.T) {
	tests := []struct {
		how  []backend.Failure // of one try after the other; answered: none
		want int
	}{
		{[]backend.Failure{backend.Unreachable}, 0},
		{[]backend.Failure{backend.Unreachable, backend.Unreachable}, 1},
		{[]backend.Failure{backend.Unreachable, answered, backend.Unreachable}, 0},
		{[]backend.Failure{backend.Broken, backend.Broken, backend.Broken, backend.Broken}, 0},
		{[]backend.Failure{backend.Broken, backend.Broken, backend.Broken, backend.Broken, backend.Broken}, 1},
		{[]backend.Failure{backend.Broken, backend.Broken, answered, backend.Broken, backend.Broken, backend.Broken}, 0},
	}
	for _, test := range tests {
		p := backend.NewPool(backend.Config{})
		p.Set(targets(2))
		for _, how := range test.how {
			l := pick(t, p, backend.Want{Stay: addr(0)})
			if how == answered {
				l.Answered(time.Millisecond)
			} else {
				l.Failed(how)
			}
			l.Done()
		}
		if got := p.Stats().Ejected; got != test.want {
			t.Errorf("after %v %d are left out, want %d", test.how, got, test.want)
		}
	}
}

const answered backend.Failure = 100

// TestLastStays wants the last target that is up to bring all back when it fails.
func TestLastStays(t *testing.T) {
	var ejected, returned int
	p := backend.NewPool(backend.Config{
		Ejected:  func(netip.AddrPort, time.Duration) { ejected++ },
		Returned: func(netip.AddrPort) { returned++ },
	})
	p.Set(targets(3))
	fail(t, p, addr(0))
	fail(t, p, addr(1))
	for range 2 {
		l := pick(t, p, backend.Want{})
		if l.Addr() != addr(2) {
			t.Fatalf("picked %v", l.Addr())
		}
		l.Failed(backend.Unreachable)
		l.Done()
	}
	if got := seen(t, p, 50, backend.Want{}); p.Stats().Ejected != 0 || !slices.Equal(got, addrs(0, 1, 2)) {
		t.Errorf("picked %v, %+v", got, p.Stats())
	}
	if ejected != 2 || returned != 0 {
		t.Errorf("was told of %d that are left out, and %d that are back", ejected, returned)
	}
	one := backend.NewPool(backend.Config{})
	one.Set(targets(1))
	for range 10 {
		l := pick(t, one, backend.Want{})
		l.Failed(backend.Unreachable)
		l.Done()
	}
}

// TestLeftOutIfNoOther wants a target that is left out rather than none.
func TestLeftOutIfNoOther(t *testing.T) {
	p := backend.NewPool(backend.Config{})
	p.Set(targets(2))
	fail(t, p, addr(0))
	for _, keyed := range []bool{false, true} {
		l := pick(t, p, backend.Want{Avoid: addrs(1), Keyed: keyed})
		if l.Done(); l.Addr() != addr(0) {
			t.Errorf("picked %v", l.Addr())
		}
	}
	l := pick(t, p, backend.Want{Avoid: addrs(1)})
	l.Answered(0)
	l.Done()
	if p.Stats().Ejected != 0 {
		t.Error("it has answered and is still left out")
	}
}

func TestSetKeeps(t *testing.T) {
	p := backend.NewPool(backend.Config{})
	p.Set(targets(4))
	fail(t, p, addr(0))
	held := pick(t, p, backend.Want{Stay: addr(3)})
	p.Set(targets(3))
	if got, want := p.Stats(), (backend.Stats{Targets: 3, Ejected: 1, InFlight: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	held.Answered(time.Second)
	for range 3 {
		held.Failed(backend.Unreachable)
	}
	held.Done()
	if got, want := p.Stats(), (backend.Stats{Targets: 3, Ejected: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	p.Set(nil)
	if _, err := p.Pick(backend.Want{}); err != backend.ErrNone {
		t.Errorf("an empty pool: %v", err)
	}
}

func TestStay(t *testing.T) {
	p := backend.NewPool(backend.Config{})
	p.Set([]backend.Target{{Addr: addr(0)}, {Addr: addr(1), Preferred: true}, {Addr: addr(2), Preferred: true}})
	if got := seen(t, p, 50, backend.Want{Stay: addr(0)}); !slices.Equal(got, addrs(0)) {
		t.Errorf("picked %v", got)
	}
	fail(t, p, addr(0))
	if got := seen(t, p, 50, backend.Want{Stay: addr(0)}); !slices.Equal(got, addrs(1, 2)) {
		t.Errorf("picked %v after it was left out", got)
	}
	if got := seen(t, p, 50, backend.Want{Stay: addr(9)}); !slices.Equal(got, addrs(1, 2)) {
		t.Errorf("picked %v for one that is not there", got)
	}
}
