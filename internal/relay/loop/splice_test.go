//go:build linux

package loop_test

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// TestBulk sends a gigabyte in each direction, and wants most of it not to pass through the process, and nothing to be left
// open for it when the flow pauses.
func TestBulk(t *testing.T) {
	const size = 1 << 30
	results := make(chan heard, 1)
	r := start(t, options{}, serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		io.WriteString(c, "hello")
		results <- both(c, 2, size)
		keeps(c)
	}))
	client := r.dial(t)
	client.SetDeadline(time.Now().Add(6 * within))
	exchange(t, client, "hello")
	before := used().fds
	wantFlow(t, "client", both(client, 1, size), 2, size)
	wantFlow(t, "backend", <-results, 1, size)
	if s := r.Stats(); s.Spliced < size/2 {
		t.Errorf("%d bytes did not pass through the process, want more than %d", s.Spliced, size/2)
	}
	r.cancel()
	r.wait(t)
	if got := used().fds; got > before-2 {
		t.Errorf("%d descriptors are open at the end, %d were before", got, before)
	}
}

// TestPipesAreGivenBack wants sessions that have moved much, and are idle, to keep two descriptors each.
func TestPipesAreGivenBack(t *testing.T) {
	const sessions, size = 50, 8 << 20
	r := start(t, options{}, serve(t, func(c *net.TCPConn) {
		for b := make([]byte, 1); ; {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			io.Copy(struct{ io.Writer }{c}, newFlow(b[0], size))
		}
	}))
	var clients []*net.TCPConn
	for range sessions {
		c := r.dial(t)
		c.SetDeadline(time.Now().Add(6 * within))
		clients = append(clients, c)
		download(t, c, 1, 1<<10) // the session stands
		download(t, c, 0, size-1<<10)
	}
	before := used().fds
	for range 2 {
		for i, c := range clients {
			download(t, c, byte(i+1), size)
		}
	}
	const pool = 2 * 2 * 64 // two loops may keep some pipes for the next flows
	eventually(t, "the pipes are given back", func() bool { return used().fds <= before+pool })
	if got := r.Stats().Spliced; got == 0 {
		t.Error("nothing was spliced")
	}
}

// download asks for a flow and reads it; size is how much of it is read.
func download(t *testing.T, c *net.TCPConn, seed byte, size int64) {
	t.Helper()
	if seed != 0 {
		c.Write([]byte{seed})
	}
	if n, err := io.CopyN(io.Discard, c, size); err != nil {
		t.Fatalf("got %d bytes and %v", n, err)
	}
}

// TestAlternates has a session change between bulk and short words: no word waits for a timer of the kernel, as it does
// when the last piece of a splice says that more follows.
func TestAlternates(t *testing.T) {
	const size, rounds, words = 2<<20 + 123, 25, 40
	r := start(t, options{}, serve(t, func(c *net.TCPConn) {
		for range rounds {
			if _, err := io.CopyN(struct{ io.Writer }{c}, struct{ io.Reader }{c}, size); err != nil {
				return
			}
			if _, err := io.CopyN(struct{ io.Writer }{c}, struct{ io.Reader }{c}, words*5); err != nil {
				return
			}
		}
	}))
	client := r.dial(t)
	client.SetDeadline(time.Now().Add(6 * within))
	var took []time.Duration
	for range rounds {
		begin := time.Now()
		go io.Copy(struct{ io.Writer }{client}, newFlow(1, size))
		got, err := sumOf(io.LimitReader(client, size))
		wantFlow(t, "client", heard{got, err}, 1, size)
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("2 MiB took %v", d)
		}
		for range words {
			begin := time.Now()
			exchange(t, client, "hello")
			took = append(took, time.Since(begin))
		}
	}
	slices.Sort(took)
	if p99 := took[len(took)*99/100]; p99 > 20*time.Millisecond {
		t.Errorf("p99 is %v, want at most 20 ms; the slowest took %v", p99, took[len(took)-1])
	}
	t.Logf("p50 %v, p99 %v, slowest %v", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}
