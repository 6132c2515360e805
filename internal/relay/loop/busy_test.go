//go:build linux

package loop_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestBusyIsNotSilent has clients come all at once to a backend that answers them one by one: each waits for its turn, and
// the other backend has none of them.
func TestBusyIsNotSilent(t *testing.T) {
	const clients, each = 100, 10 * time.Millisecond // far more than Hello in sum
	turns := time.NewTicker(each)
	defer turns.Stop()
	busy := serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 20))
		<-turns.C
		io.WriteString(c, "here")
	})
	other, flights := silent(t)
	r := start(t, options{timing: quick, workers: 1}, busy, other)
	var wg sync.WaitGroup
	for range clients {
		client := r.dial(t)
		wg.Go(func() {
			io.WriteString(client, helloOf(20))
			if b, err := io.ReadAll(client); string(b) != "here" || err != nil {
				t.Errorf("got %q and %v", b, err)
			}
			client.Close()
		})
	}
	wg.Wait()
	if s := r.Stats(); s.Replayed != 0 || s.HelloTimeouts != 0 || len(flights) != 0 {
		t.Errorf("%d hellos were sent again, and %d had no answer; want none", s.Replayed, s.HelloTimeouts)
	}
}

// TestHangsAtLast has a backend that has answered and then hangs: the hellos that it has go to the other one.
func TestHangsAtLast(t *testing.T) {
	const clients = 50
	var first atomic.Bool
	hangs := serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 20))
		if first.CompareAndSwap(false, true) {
			io.WriteString(c, "here")
			return
		}
		keeps(c)
	})
	r := start(t, options{timing: quick}, hangs, serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 20))
		io.WriteString(c, "here")
	}))
	var all []*net.TCPConn
	for range clients {
		c := r.dial(t)
		io.WriteString(c, helloOf(20))
		all = append(all, c)
	}
	for _, c := range all {
		if b := make([]byte, 4); !reads(c, b) || string(b) != "here" {
			t.Errorf("got %q, want here", b)
		}
	}
	if s := r.Stats(); s.Replayed != clients-1 {
		t.Errorf("%d hellos were sent again, want %d", s.Replayed, clients-1)
	}
}
