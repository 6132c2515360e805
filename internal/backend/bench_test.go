package backend_test

import (
	"fmt"
	"testing"
	"time"

	"varco.dev/internal/backend"
)

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 10, 1000} {
		for _, w := range []backend.Want{{}, {Keyed: true, Key: 1}} {
			p := backend.NewPool(backend.Config{})
			p.Set(targets(n))
			b.Run(fmt.Sprintf("targets=%d/keyed=%v", n, w.Keyed), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					l, _ := p.Pick(w)
					l.Answered(time.Millisecond)
					l.Done()
				}
			})
		}
	}
}

// BenchmarkPickAlone leaves out what is reported.
func BenchmarkPickAlone(b *testing.B) {
	p := backend.NewPool(backend.Config{})
	p.Set(targets(1000))
	for b.Loop() {
		p.Pick(backend.Want{})
	}
}

func BenchmarkPickParallel(b *testing.B) {
	p := backend.NewPool(backend.Config{})
	p.Set(targets(1000))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, _ := p.Pick(backend.Want{})
			l.Answered(time.Millisecond)
			l.Done()
		}
	})
}

func TestPickDoesNotAllocate(t *testing.T) {
	p := backend.NewPool(backend.Config{})
	p.Set(targets(1000))
	avoid := addrs(1, 2, 3)
	for _, w := range []backend.Want{{}, {Keyed: true, Key: 1}, {Stay: addr(1)}, {Avoid: avoid}} {
		got := testing.AllocsPerRun(1000, func() {
			l := pick(t, p, w)
			l.Answered(time.Millisecond)
			l.Done()
		})
		if got != 0 {
			t.Errorf("%+v: a pick allocates %v times", w, got)
		}
	}
}
