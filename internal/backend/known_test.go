package backend_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend"
)

// known are targets of which the first are down and the next are draining.
func known(n, down, draining int) []backend.Target {
	out := targets(n)
	for i := range out {
		out[i].Down, out[i].Draining = i < down, i >= down && i < down+draining
	}
	return out
}

func TestKnownDown(t *testing.T) {
	tests := []struct {
		name           string
		n, down, drain int
		fails          []int // those that fail until they are left out
		avoid          []int
		want           []netip.AddrPort
	}{
		{name: "one is up", n: 3, down: 2, want: addrs(2)},
		{name: "one is draining", n: 3, down: 2, drain: 1, want: addrs(2)},
		{name: "all are down", n: 3, down: 3, want: addrs(0, 1, 2)},
		{name: "one that failed is better", n: 3, down: 1, fails: []int{1}, avoid: []int{2}, want: addrs(1)},
		{name: "nothing else is left", n: 3, down: 1, avoid: []int{1, 2}, want: addrs(0)},
		{name: "preferred and down", n: 1, down: 1, want: addrs(0)},
	}
	for _, test := range tests {
		for _, w := range []backend.Want{{}, {Keyed: true, Key: 7}} {
			for _, least := range []bool{false, true} {
				p := backend.NewPool(backend.Config{Least: least})
				p.Set(known(test.n, test.down, test.drain))
				for _, n := range test.fails {
					fail(t, p, addr(n))
				}
				w.Avoid = addrs(test.avoid...)
				got := seen(t, p, 60, w)
				want := test.want
				if w.Keyed { // a key has one target
					want = got[:1]
				}
				if !slices.Equal(got, want) || !slices.Contains(test.want, got[0]) {
					t.Errorf("%s, keyed %v, least %v: %v are picked, want %v", test.name, w.Keyed, least, got, test.want)
				}
			}
		}
	}
}

// TestLastStaysAmongDown has the only target that is up fail: those that are down are no reason to leave it out.
func TestLastStaysAmongDown(t *testing.T) {
	p := backend.NewPool(backend.Config{})
	p.Set(known(3, 2, 0))
	for range 10 {
		l := pick(t, p, backend.Want{})
		l.Failed(backend.Unreachable)
		l.Done()
	}
	if got := p.Stats().Ejected; got != 0 {
		t.Errorf("%d are left out", got)
	}
}

func TestStayKnownDown(t *testing.T) {
	p := backend.NewPool(backend.Config{})
	p.Set(known(2, 1, 0))
	if l := pick(t, p, backend.Want{Stay: addr(0)}); l.Addr() != addr(1) {
		t.Errorf("%v is picked, which is down", l.Addr())
	}
	if p.Others(addrs(1)) {
		t.Error("one that is down counts as another one")
	}
}

// TestKnownDownIsNotTried lets much time pass: a target that is known to be down must get no trial.
func TestKnownDownIsNotTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backend.NewPool(backend.Config{})
		p.Set(targets(2))
		fail(t, p, addr(0))
		p.Set(known(2, 1, 0))
		time.Sleep(time.Hour) // of the bubble
		if got := seen(t, p, 50, backend.Want{}); !slices.Equal(got, addrs(1)) {
			t.Errorf("%v are picked, want the second only", got)
		}
		p.Set(targets(2))
		if got := p.Stats().Ejected; got != 0 {
			t.Errorf("%d are left out, although it is said to be up", got)
		}
	})
}

// TestKnownDownForgets has a target that was left out for longer and longer be known to be down, and up again: it begins anew.
func TestKnownDownForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out time.Duration
		p := backend.NewPool(backend.Config{Ejected: func(_ netip.AddrPort, d time.Duration) { out = d }})
		p.Set(targets(2))
		fail(t, p, addr(0))
		for range 5 {
			time.Sleep(time.Minute) // of the bubble
			l := pick(t, p, backend.Want{Stay: addr(0)})
			l.Failed(backend.Unreachable)
			l.Done()
		}
		if out < 20*time.Second {
			t.Fatalf("it was left out for %v", out)
		}
		p.Set(known(2, 1, 0))
		p.Set(targets(2))
		if fail(t, p, addr(0)); out > 2*time.Second {
			t.Errorf("it is left out for %v", out)
		}
	})
}

// TestKnownDownReturns counts what a target gets when it is up again, and later.
func TestKnownDownReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backend.NewPool(backend.Config{})
		p.Set(known(3, 1, 0))
		seen(t, p, 1000, backend.Want{})
		p.Set(targets(3))
		first := share(t, p, 300)
		time.Sleep(11 * time.Second) // of the bubble
		share(t, p, 300)             // it may catch up a little
		if whole := share(t, p, 300); first > 30 || whole < 95 || whole > 105 {
			t.Errorf("of 300 it got %d, after 11 s %d", first, whole)
		}
	})
}

// share counts how many of a number of requests the first target gets.
func share(t *testing.T, p *backend.Pool, n int) (got int) {
	for range n {
		l := pick(t, p, backend.Want{})
		if l.Answered(0); l.Addr() == addr(0) {
			got++
		}
		l.Done()
	}
	return got
}

// TestLeastSpread opens connections that last, and wants their numbers to be nearly equal.
func TestLeastSpread(t *testing.T) {
	for _, test := range []struct{ n, conns, most int }{{2, 1001, 1}, {3, 1000, 1}, {10, 10000, 6}} {
		p := backend.NewPool(backend.Config{Least: true, Random: rand.New(rand.NewPCG(1, 2)).Uint64})
		p.Set(targets(test.n))
		for n := range test.conns {
			pick(t, p, backend.Want{})
			if least, most := bounds(p); most-least > test.most {
				t.Fatalf("of %d connections targets have %d to %d", n+1, least, most)
			}
		}
	}
}

func bounds(p *backend.Pool) (least, most int) {
	least = 1 << 30
	for _, n := range p.Leases() {
		least, most = min(least, n), max(most, n)
	}
	return least, most
}

// TestLeastEqualShares has short connections one at a time: the count in flight says nothing then, what each has had does.
func TestLeastEqualShares(t *testing.T) {
	p := backend.NewPool(backend.Config{Least: true})
	p.Set(targets(3))
	if got := share(t, p, 300); got < 99 || got > 101 {
		t.Errorf("a target got %d of 300", got)
	}
}

// TestLeastReturn has a target come back without connections among others that have many: it must not get all that are new.
func TestLeastReturn(t *testing.T) {
	for _, size := range []struct{ n, spread int }{{3, 2}, {10, 8}} {
		all := known(size.n, 0, 0)
		for name, before := range map[string][]backend.Target{
			"down": known(size.n, 1, 0), "draining": known(size.n, 0, 1), "new": all[1:],
		} {
			synctest.Test(t, func(t *testing.T) {
				p := backend.NewPool(backend.Config{Least: true, Random: rand.New(rand.NewPCG(1, 2)).Uint64})
				p.Set(before)
				open := func(n int) {
					for range n {
						pick(t, p, backend.Want{})
					}
				}
				open((size.n - 1) * 1000)
				p.Set(all)
				open(500)
				if got := p.Leases()[addr(0)]; got < 80 || got > 130 { // a tenth of the others' 1,000
					t.Errorf("%s, one of %d: it has got %d of 500 at once", name, size.n, got)
				}
				time.Sleep(11 * time.Second) // of the bubble
				open(size.n * 1000)
				if least, most := bounds(p); most-least > size.spread {
					t.Errorf("%s, one of %d: in the end targets have %d to %d connections", name, size.n, least, most)
				}
			})
		}
	}
}

// TestLeastReturnTogether has all targets go and come back, one of them a little earlier: it must not get all connections that
// clients open then.
func TestLeastReturnTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := backend.NewPool(backend.Config{Least: true, Random: rand.New(rand.NewPCG(1, 2)).Uint64})
		up := func(n int, since time.Time) []backend.Target { // the others are down, but used as long as nobody is up
			all := known(3, 0, 0)
			for i := range all {
				if all[i].Since = since; i >= n {
					all[i].Since, all[i].Down = time.Time{}, n > 0
				}
			}
			return all
		}
		p.Set(up(3, time.Now()))
		time.Sleep(time.Minute) // of the bubble
		p.Set(up(0, time.Time{}))
		time.Sleep(time.Minute) // of the bubble
		first := time.Now()
		p.Set(up(1, first))
		time.Sleep(200 * time.Millisecond) // of the bubble
		all := up(3, time.Now())
		all[0].Since = first
		p.Set(all)
		for range 900 {
			pick(t, p, backend.Want{})
		}
		if least, most := bounds(p); least < 250 || most > 350 {
			t.Errorf("targets have %d to %d of 900 connections", least, most)
		}
	})
}

func TestLeases(t *testing.T) {
	p := backend.NewPool(backend.Config{Least: true})
	p.Set(targets(2))
	l := pick(t, p, backend.Want{Stay: addr(1)})
	pick(t, p, backend.Want{Stay: addr(1)})
	l.Done()
	p.Set(known(2, 2, 0)) // leases outlast what is known
	if got := p.Leases(); len(got) != 2 || got[addr(0)] != 0 || got[addr(1)] != 1 {
		t.Errorf("leases are %v", got)
	}
}

// TestKnownAtRandom checks after anything may have happened that what is down is picked only if nothing else is left.
func TestKnownAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		p := backend.NewPool(backend.Config{Least: true, Random: r.Uint64})
		var now []backend.Target
		for range 20000 {
			if r.IntN(10) == 0 {
				now = targets(r.IntN(6))
				for i := range now {
					now[i].Down, now[i].Draining = r.IntN(3) == 0, r.IntN(3) == 0
				}
				p.Set(now)
			}
			avoid := addrs(r.Perm(6)[:r.IntN(4)]...)
			l, err := p.Pick(backend.Want{Avoid: avoid})
			left := slices.DeleteFunc(slices.Clone(now), func(t backend.Target) bool { return slices.Contains(avoid, t.Addr) })
			if err != nil {
				if len(left) > 0 {
					t.Fatalf("nothing is picked of %v", left)
				}
				continue
			}
			i := slices.IndexFunc(left, func(t backend.Target) bool { return t.Addr == l.Addr() })
			if i < 0 || left[i].Down && slices.ContainsFunc(left, func(t backend.Target) bool { return !t.Down }) {
				t.Fatalf("%v is picked of %v", l.Addr(), left)
			}
			report(r, l)
			time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // of the bubble
		}
	})
}

func report(r *rand.Rand, l backend.Lease) {
	switch r.IntN(4) {
	case 0:
		l.Failed(backend.Unreachable)
	case 1:
		l.Failed(backend.Broken)
	case 2:
		l.Answered(time.Millisecond)
	}
	if r.IntN(5) > 0 {
		l.Done()
	}
}
