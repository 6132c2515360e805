package backend_test

import (
	"math/rand/v2"
	"testing"
	"time"
)

// noises are how latencies of equal targets vary, as a multiple of something.
var noises = map[string]func(r *rand.Rand) float64{
	"none":        func(*rand.Rand) float64 { return 1 },
	"uniform":     func(r *rand.Rand) float64 { return 0.5 + r.Float64() },
	"exponential": func(r *rand.Rand) float64 { return r.ExpFloat64() },
	"two sizes": func(r *rand.Rand) float64 {
		if r.IntN(20) == 0 {
			return 50
		}
		return 1
	},
	"pareto": func(r *rand.Rand) float64 { return min(200, 1/(1-r.Float64())) },
}

// TestSpread wants equal targets to have equal shares, whatever the noise.
func TestSpread(t *testing.T) {
	const n, most = 10, 1.1
	for name, noise := range noises {
		for _, workers := range []int{1, 8, 64, 256} {
			for seed := range uint64(2) {
				r := rand.New(rand.NewPCG(seed, 1))
				c := newCrowd(seed, n, func(int, time.Duration) (time.Duration, bool) {
					return time.Duration(noise(r) * float64(5*time.Millisecond)), true
				})
				c.send(workers, 10000)
				if got := c.spread(n); got > most {
					t.Errorf("noise %s, %d workers: the largest share is %.3f times the smallest, want %v at most", name, workers, got, most)
				}
			}
		}
	}
}

// TestSlowGetsLess has one target take ten times as long as the others.
func TestSlowGetsLess(t *testing.T) {
	for name, noise := range noises {
		for _, workers := range []int{1, 8, 64} {
			r := rand.New(rand.NewPCG(7, 1))
			c := newCrowd(7, 10, func(n int, _ time.Duration) (time.Duration, bool) {
				took := time.Duration(noise(r) * float64(5*time.Millisecond))
				if n == 3 {
					took *= 10
				}
				return took, true
			})
			c.send(workers, 1000)
			c.reset()
			c.send(workers, 10000)
			if got := c.got[addr(3)]; got > 1000/3 || got == 0 {
				t.Errorf("noise %s, %d workers: the slow target has got %d of 10000 requests, want some, but a third of its share at most", name, workers, got)
			}
		}
	}
}

// TestSlowRecovers has a slow target become as fast as the others.
func TestSlowRecovers(t *testing.T) {
	for _, workers := range []int{1, 64} {
		slow := true
		c := newCrowd(7, 10, func(n int, _ time.Duration) (time.Duration, bool) {
			if n == 3 && slow {
				return 50 * time.Millisecond, true
			}
			return 5 * time.Millisecond, true
		})
		c.send(workers, 2000)
		slow = false
		c.send(workers, 10000)
		c.reset()
		c.send(workers, 10000)
		if got := c.spread(10); got > 1.1 {
			t.Errorf("%d workers: after it is as fast as the others, a target's share differs by %.3f", workers, got)
		}
	}
}

// TestDeadTarget wants a target that refuses connections to cost a few tries, and no request.
func TestDeadTarget(t *testing.T) {
	for _, dead := range []int{1, 3, 9} {
		c := newCrowd(5, 10, func(n int, _ time.Duration) (time.Duration, bool) {
			return 5 * time.Millisecond, n >= dead
		})
		c.send(64, 10000)
		wasted := 0
		for i := range dead {
			wasted += c.tries[addr(i)]
		}
		if dead == 1 && c.failed > 0 {
			t.Errorf("%d requests failed", c.failed)
		}
		if c.failed > 64 { // those that were on their way when it was found out
			t.Errorf("%d dead targets: %d requests failed", dead, c.failed)
		}
		if most := 40 * dead; wasted > most {
			t.Errorf("%d dead targets have cost %d tries, want %d at most", dead, wasted, most)
		}
	}
}

// TestHangingTarget has connections to a target hang until they are given up.
func TestHangingTarget(t *testing.T) {
	c := newCrowd(5, 10, func(n int, _ time.Duration) (time.Duration, bool) {
		if n == 0 {
			return 2 * time.Second, false
		}
		return 5 * time.Millisecond, true
	})
	c.send(64, 100000)
	if c.failed > 0 || c.tries[addr(0)] > 64 {
		t.Errorf("%d requests failed, %d were kept waiting", c.failed, c.tries[addr(0)])
	}
}

// TestReturn has a target come back, and looks at what it gets.
func TestReturn(t *testing.T) {
	const back = 20 * time.Second
	for name, noise := range noises {
		r := rand.New(rand.NewPCG(9, 1))
		c := newCrowd(9, 10, func(n int, now time.Duration) (time.Duration, bool) {
			if n == 0 && now < back {
				return time.Millisecond, false
			}
			return time.Duration(noise(r) * float64(20*time.Millisecond)), true
		})
		for range 64 {
			c.try(nil)
		}
		shares := map[int]int{} // second after its return -> requests
		var first time.Time
		for c.now.Sub(c.start) < 80*time.Second {
			before := c.got[addr(0)]
			c.step(true)
			if c.got[addr(0)] == before {
				continue
			}
			if first.IsZero() {
				first = c.now
			}
			shares[int(c.now.Sub(first)/time.Second)]++
		}
		if late := first.Sub(c.start) - back; first.IsZero() || late > 20*time.Second {
			t.Fatalf("noise %s: it was tried again %v after its return", name, late)
		}
		whole := shares[30]
		if shares[0] > whole/3 || shares[5] > whole || shares[5] < whole/4 || whole == 0 {
			t.Errorf("noise %s: requests in each second after the return: %v", name, shares)
		}
		if c.failed > 0 {
			t.Errorf("noise %s: %d requests failed", name, c.failed)
		}
	}
}

// TestNewTarget wants one that joins a busy pool to get no burst.
func TestNewTarget(t *testing.T) {
	c := newCrowd(3, 9, func(int, time.Duration) (time.Duration, bool) { return 5 * time.Millisecond, true })
	c.send(64, 10000)
	c.pool.Set(targets(10))
	c.reset()
	c.send(64, 1000)
	if got := c.got[addr(9)]; got < 80 || got > 130 {
		t.Errorf("the new one got %d of 1000 requests, want about 100", got)
	}
}
