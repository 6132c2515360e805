//go:build !race

package health_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"varco.dev/internal/backend/health"
)

// busy is a host whose goroutines run late: what happens on connections is seen after a while only, and then it is too late.
type busy struct {
	net.Conn
	late func() time.Duration
}

func (b busy) Read(p []byte) (int, error) {
	d := b.late()
	time.Sleep(d) // of the bubble: the host does something else
	if d > 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return b.Conn.Read(p)
}

// TestBusyHost has this host be so busy that timers are late: a timeout says nothing about a backend then.
func TestBusyHost(t *testing.T) {
	tests := []struct {
		name  string
		times int64 // that it is late in a row
		late  time.Duration
		want  string
	}{
		{"late enough to be noticed", 3, 1400 * time.Millisecond, "a:Up b:Up"},
		{"not late: the backend is", 2, 1100 * time.Millisecond, "a:Down,cut b:Up"},
		{"always", 1 << 30, 2 * time.Second, "a:Down,cut b:Up"},
	}
	for _, test := range tests {
		var left atomic.Int64
		change := func(w *world) {
			dial := w.config.Dial
			w.config.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
				c, err := dial(ctx, addr)
				if err != nil || addr != w.a {
					return c, err
				}
				return busy{c, func() time.Duration {
					if left.Add(-1) < 0 {
						return 0
					}
					return test.late
				}}, nil
			}
			w.busy = true
		}
		inWorld(t, "ab", change, func(w *world) {
			time.Sleep(5 * time.Second) // of the bubble
			w.expect("a:Up b:Up")
			left.Store(test.times)
			w.checker.Report(w.a, health.Broken) // a new connection
			time.Sleep(30 * time.Second)         // of the bubble
			if !strings.Contains(w.all(), test.want) || test.want == "a:Up b:Up" && strings.Contains(w.all(), ":D") {
				t.Errorf("%s: told were %s", test.name, w.all())
			}
		})
	}
}

// TestLateStart has a probe begin late, and its first try time out: that says nothing.
func TestLateStart(t *testing.T) {
	for late, want := range map[time.Duration]int64{0: 2, time.Second: 3} {
		var tries atomic.Int64
		change := func(w *world) {
			w.busy = true
			w.config.Random = func() float64 {
				time.Sleep(late) // of the bubble: the next probe is overdue when it is planned
				return 0
			}
			w.config.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
				tries.Add(1)
				<-ctx.Done()
				return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
			}
		}
		inWorld(t, "a", change, func(w *world) {
			time.Sleep(2600 * time.Millisecond) // of the bubble: the first probe, that is not late
			if got := tries.Swap(0); got != 2 {
				t.Errorf("%d tries by the first probe, want 2", got)
			}
			time.Sleep(late + 2700*time.Millisecond) // of the bubble: the second one
			if got := tries.Load(); got != want {
				t.Errorf("late by %v: %d tries, want %d", late, got, want)
			}
		})
	}
}
