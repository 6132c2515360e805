//go:build !race

package health_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"varco.dev/internal/backend/health"
)

// TestChaos has anything happen to three backends for a while. In the end all work, and all must be up, each with one connection.
func TestChaos(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 2))
		inWorld(t, "abc", nil, func(w *world) {
			for range 1000 {
				time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond) // of the bubble
				w.mischief(r)
				w.holds()
			}
			w.checker.Set(backendsOf("abc"))
			for _, p := range w.peers {
				p.cont()
				p.set(func(p *peer) { p.way, p.delay, p.answer = works, 0, status(200, "ok") })
			}
			w.until("a:Up b:Up c:Up", 15*time.Second)
			time.Sleep(20 * time.Second) // of the bubble
			for addr, p := range w.peers {
				if _, _, open := p.counts(); open != 1 {
					t.Errorf("seed %d: %v has %d connections", seed, addr, open)
				}
			}
		})
	}
}

// mischief does something to a backend.
func (w *world) mischief(r *rand.Rand) {
	letters := []string{"abc", "ab", "bc", "a", "abc", "abc"}
	addr := backendOf("abc"[r.IntN(3)])
	p := w.peers[addr]
	switch r.IntN(9) {
	case 0:
		p.stop()
	case 1, 2:
		p.cont()
	case 3:
		p.drop()
	case 4:
		p.set(func(p *peer) {
			p.way = []way{works, works, works, refuses, blackhole, noRoute, closes, garbage}[r.IntN(8)]
		})
	case 5:
		p.set(func(p *peer) { p.delay = time.Duration(r.IntN(4)) * 400 * time.Millisecond })
	case 6:
		p.set(func(p *peer) { p.answer = status([]int{200, 200, 500, 401}[r.IntN(4)], "") })
	case 7:
		w.checker.Report(addr, []health.Result{health.Refused, health.Hung, health.Broken, health.Unreachable}[r.IntN(4)])
		w.byte(addr)
	case 8:
		w.checker.Set(backendsOf(letters[r.IntN(len(letters))]))
	}
}

// holds checks what must hold whatever has happened.
func (w *world) holds() {
	w.t.Helper()
	all := w.checker.Verdicts()
	usable := 0
	for _, v := range all {
		if v.Usable() {
			usable++
		}
	}
	for _, v := range all {
		if usable == 0 || v.Cut && v.Usable() {
			w.t.Errorf("usable are %d of %s", usable, verdicts(all))
		}
	}
}
