//go:build linux

package loop_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"varco.dev/internal/relay/loop"
)

// TestSizes sends flows of many sizes in both directions at once, over both IP families.
func TestSizes(t *testing.T) {
	for family, address := range families {
		for _, size := range []int64{0, 1, 2, 100, 1<<14 - 1, 1 << 14, 1<<14 + 1, 1<<16 - 1, 1 << 16, 1<<16 + 1, 300_000, 1 << 20, 10 << 20} {
			t.Run(fmt.Sprintf("%s %d", family, size), func(t *testing.T) {
				results := make(chan heard, 1)
				r := start(t, options{listen: address}, serveAt(t, address, func(c *net.TCPConn) { results <- both(c, 2, size) }))
				client := r.dial(t)
				wantFlow(t, "client", both(client, 1, size), 2, size)
				wantFlow(t, "backend", <-results, 1, size)
				client.Close()
				r.wants(t, map[bool]string{false: "Connected Answered Ended", true: "Connected Ended"}[size == 0])
				wantStats(t, r, size)
			})
		}
	}
}

// wantStats wants exactly the bytes of one session to have been counted, and nothing to be open.
func wantStats(t *testing.T, r *running, size int64) {
	t.Helper()
	eventually(t, "the session is not open any more", func() bool { return r.Stats().Open == 0 })
	if s := r.Stats(); s.Accepted != 1 || s.In != uint64(size) || s.Out != uint64(size) {
		t.Errorf("got %+v, want one session with %d bytes both ways", s, size)
	}
}

// TestHalfClose has each side say that it has sent all before the other one begins.
func TestHalfClose(t *testing.T) {
	const size = 1 << 20
	first := func(c *net.TCPConn) heard {
		err := send(c, 1, size)
		if err != nil {
			return heard{err: err}
		}
		s, err := sumOf(c)
		return heard{s, err}
	}
	second := func(c *net.TCPConn) heard {
		s, err := sumOf(c)
		if err == nil {
			err = send(c, 2, size)
		}
		return heard{s, err}
	}
	for name, sides := range map[string][2]func(*net.TCPConn) heard{"client first": {first, second}, "backend first": {second, first}} {
		t.Run(name, func(t *testing.T) {
			results := make(chan heard, 1)
			r := start(t, options{}, serve(t, func(c *net.TCPConn) { results <- sides[1](c) }))
			got, at := [2]heard{}, map[string]int{"client first": 0, "backend first": 1}[name]
			got[0] = sides[0](r.dial(t))
			got[1] = <-results
			wantFlow(t, "the first one", got[at], 2, size)
			wantFlow(t, "the second one", got[1-at], 1, size)
			r.wants(t, "Connected Answered Ended")
		})
	}
}

// TestHalfClosedEnds has one side close and the other one stay silent: the session ends after Timing.HalfClosed.
func TestHalfClosedEnds(t *testing.T) {
	r := start(t, options{timing: loop.Timing{HalfClosed: 200 * time.Millisecond}}, serve(t, func(c *net.TCPConn) {
		io.WriteString(c, "hello")
		keeps(c)
		readError(c)
		select {} // neither speaks nor closes; it ends with the process
	}))
	client := r.dial(t)
	client.CloseWrite()
	if got, _ := io.ReadAll(client); string(got) != "hello" {
		t.Errorf("got %q, want hello", got)
	}
	r.wants(t, "Connected Answered Ended")
}

// TestServersThatSpeakFirst has servers that do not wait for a word of the client.
func TestServersThatSpeakFirst(t *testing.T) {
	for name, c := range map[string]struct {
		server func(*net.TCPConn)
		want   string
		story  string
	}{
		"says and closes":  {says("hello"), "hello", "Connected Answered Ended"},
		"closes":           {func(*net.TCPConn) {}, "", "Connected Ended"},
		"says and waits":   {func(c *net.TCPConn) { io.WriteString(c, "hello"); c.CloseWrite(); keeps(c) }, "hello", "Connected Answered Ended"},
		"says much":        {says(strings.Repeat("much", 1<<18)), strings.Repeat("much", 1<<18), "Connected Answered Ended"},
		"says it at twice": {func(c *net.TCPConn) { io.WriteString(c, "hel"); io.WriteString(c, "lo") }, "hello", "Connected Answered Ended"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, options{}, serve(t, c.server))
			if got, err := ask(r.at); got != c.want || err != nil {
				t.Errorf("got %d bytes and %v, want %d", len(got), err, len(c.want))
			}
			r.wants(t, c.story)
		})
	}
}

// TestClientThatSpeaksAndCloses sends its word and its end in one go.
func TestClientThatSpeaksAndCloses(t *testing.T) {
	for range 20 { // it is a race between the client's end and the connection to the backend
		r := start(t, options{}, serve(t, echoes))
		client := r.dial(t)
		io.WriteString(client, "hello")
		client.CloseWrite()
		if got, err := io.ReadAll(client); string(got) != "hello" || err != nil {
			t.Fatalf("got %q and %v, want hello", got, err)
		}
		r.wants(t, "Connected Answered Ended")
	}
}

// TestResets wants an early end of one side to look like one to the other.
func TestResets(t *testing.T) {
	t.Run("of the backend", func(t *testing.T) {
		r := start(t, options{}, serve(t, func(c *net.TCPConn) {
			io.WriteString(c, "go")
			io.ReadFull(c, make([]byte, 2))
			abort(c)
		}))
		client := r.dial(t)
		io.ReadFull(client, make([]byte, 2))
		io.WriteString(client, "go")
		wantReset(t, readError(client))
		r.wants(t, "Connected Answered Ended")
	})
	t.Run("of the client", func(t *testing.T) {
		errs := make(chan error, 1)
		r := start(t, options{}, serve(t, func(c *net.TCPConn) {
			io.WriteString(c, "go")
			errs <- readError(c)
		}))
		client := r.dial(t)
		io.ReadFull(client, make([]byte, 2))
		abort(client)
		wantReset(t, <-errs)
		r.wants(t, "Connected Answered Ended")
	})
	t.Run("of a client that has sent", func(t *testing.T) {
		errs := make(chan error, 1)
		r := start(t, options{}, serve(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 2))
			io.WriteString(c, "go")
			errs <- readError(c)
		}))
		client := r.dial(t)
		io.WriteString(client, "go")
		io.ReadFull(client, make([]byte, 1)) // one byte stays unread
		abort(client)
		wantReset(t, <-errs)
	})
}

// TestPingPong has many clients exchange many short words at the same time.
func TestPingPong(t *testing.T) {
	r := start(t, options{}, serve(t, echoes))
	var wg sync.WaitGroup
	for i := range 32 {
		client := r.dial(t)
		wg.Go(func() {
			for n := range 500 {
				if err := tryExchange(client, fmt.Appendf(nil, "client %d word %d", i, n)); err != nil {
					t.Error(err)
					return
				}
			}
			client.Close()
		})
	}
	wg.Wait()
	eventually(t, "no session is open any more", func() bool { return r.Stats().Open == 0 })
}

// TestManyListeners adds and removes listeners while the relay runs: sessions of those that are gone go on.
func TestManyListeners(t *testing.T) {
	r := start(t, options{}, serve(t, echoes))
	var clients []*net.TCPConn
	for i := range 20 {
		name := fmt.Sprintf("more-%d", i)
		l, at := listen(t, loopback)
		if err := r.Listen(loop.Listener{Name: name, Net: l}); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, dial(t, at))
		exchange(t, clients[i], name)
		r.Unlisten(name)
		eventually(t, "nobody listens any more", func() bool {
			c, err := net.Dial("tcp", at.String())
			if err == nil {
				c.Close()
			}
			return err != nil
		})
	}
	for i, c := range clients {
		exchange(t, c, fmt.Sprintf("still more-%d", i))
	}
	if s := r.Sessions(100); len(s) != 20 {
		t.Errorf("got %d sessions, want 20", len(s))
	}
	exchange(t, r.dial(t), "the first one is still there")
}

// TestListenersHaveNames wants a name to be free before it is taken, and to be free again when it was given back.
func TestListenersHaveNames(t *testing.T) {
	r := start(t, options{}, serve(t, echoes))
	taken, _ := listen(t, loopback)
	if err := r.Listen(loop.Listener{Name: "front", Net: taken}); err == nil {
		t.Error("a second listener has the name of the first")
	}
	r.Unlisten("front")
	l, at := listen(t, loopback)
	if err := r.Listen(loop.Listener{Name: "front", Net: l}); err != nil {
		t.Fatal(err)
	}
	client := dial(t, at)
	exchange(t, client, "hello")
	if got := r.client(t); got.Listener != "front" || got.Addr != addrOf(client.LocalAddr()) || got.Peer != got.Addr || got.Local != at {
		t.Errorf("got %+v, want the client at %v of front", got, client.LocalAddr())
	}
}

// TestRunEnds wants all sessions to be reset on both sides and all listeners to be closed.
func TestRunEnds(t *testing.T) {
	errs := make(chan error, 3)
	r := start(t, options{}, serve(t, func(c *net.TCPConn) {
		c.Write([]byte("!"))
		errs <- readError(c)
	}))
	var clients []*net.TCPConn
	for range 3 {
		clients = append(clients, r.dial(t))
		io.ReadFull(clients[len(clients)-1], make([]byte, 1))
	}
	r.cancel()
	r.wait(t)
	for _, c := range clients {
		wantReset(t, readError(c))
		wantReset(t, <-errs)
	}
	if c, err := net.Dial("tcp", r.at.String()); err == nil {
		c.Close()
		t.Error("somebody still listens")
	}
}

// TestRunEndsWhileConnecting has a backend that does not answer when the relay ends.
func TestRunEndsWhileConnecting(t *testing.T) {
	r := start(t, options{}, blackHole(t))
	client := r.dial(t)
	eventually(t, "a backend was picked", func() bool { s, _ := r.story(); return len(s) == 1 })
	r.cancel()
	r.wait(t)
	wantReset(t, readError(client))
	r.wants(t, "Ended")
}

// TestDrain wants nobody new to get in and sessions to go on to their end.
func TestDrain(t *testing.T) {
	r := start(t, options{}, serve(t, echoes))
	client := r.dial(t)
	exchange(t, client, "before")
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(t.Context()) }()
	eventually(t, "nobody listens any more", func() bool {
		c, err := net.Dial("tcp", r.at.String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	exchange(t, client, "after")
	select {
	case err := <-drained:
		t.Errorf("drained before the session has ended: %v", err)
	default:
	}
	client.Close()
	select {
	case err := <-drained:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(within):
		t.Error("it does not see that the last session has ended")
	}
}
