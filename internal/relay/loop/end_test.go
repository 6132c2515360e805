//go:build linux

package loop_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"varco.dev/internal/relay/loop"
)

// TestEnd wants both sides of all sessions of a backend to be reset, and those of others to live on.
func TestEnd(t *testing.T) {
	errs := make(chan error, 10)
	one := serve(t, func(c *net.TCPConn) {
		io.WriteString(c, "1")
		errs <- readError(c)
	})
	two := serve(t, echoes)
	r := start(t, options{}, one)
	var clients []*net.TCPConn
	for range 10 {
		clients = append(clients, r.dial(t))
		io.ReadFull(clients[len(clients)-1], make([]byte, 1))
	}
	r.set(two)
	other := r.dial(t)
	exchange(t, other, "before")
	if n := r.End(one, "test"); n != 10 {
		t.Errorf("%d sessions were ended, want 10", n)
	}
	for _, c := range clients {
		wantReset(t, readError(c))
		wantReset(t, <-errs)
	}
	exchange(t, other, "after")
	if n := r.End(one, "again"); n != 0 {
		t.Errorf("%d sessions were ended at the second time, want none", n)
	}
	eventually(t, "all are counted", func() bool { return r.Stats().Ended[loop.EndedByCaller] == 10 })
}

// TestEndWhileConnecting wants those who wait for a connection to the backend to get another one.
func TestEndWhileConnecting(t *testing.T) {
	hole := blackHole(t)
	r := start(t, options{timing: loop.Timing{Connect: time.Hour}}, hole, serve(t, echoes))
	client := r.dial(t)
	io.WriteString(client, "hello")
	eventually(t, "a backend was picked", func() bool { s, _ := r.story(); return len(s) == 1 })
	r.End(hole, "test")
	if b := make([]byte, 5); !reads(client, b) || string(b) != "hello" {
		t.Errorf("got %q, want hello", b)
	}
	client.Close()
	eventually(t, "the session has ended", func() bool { return r.Stats().Open == 0 })
	s, _ := r.story()
	if len(s) != 2 || s[0] != "Ended" && s[0] != "Unreachable Ended" || s[1] != "Connected Answered Ended" {
		t.Errorf("got %q", s)
	}
}

// TestEndWhileSilent wants a TLS client whose flight was not answered to get another backend, with its flight.
func TestEndWhileSilent(t *testing.T) {
	a := newAuthority(t)
	quiet, _ := silent(t)
	r := start(t, options{timing: loop.Timing{Hello: time.Hour}}, quiet, a.serveTLS(t))
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	client, config := r.dial(t), a.client(t, 0)
	go func() {
		text, err := askTLS(client, config)
		answers <- answer{text, err}
	}()
	eventually(t, "the flight was sent", func() bool { return r.Traffic()[quiet].In > 0 })
	r.End(quiet, "test")
	if got := <-answers; got.text != "you are alice" || got.err != nil {
		t.Errorf("got %q and %v", got.text, got.err)
	}
}

// TestEndBlocked ends sessions in the middle of much data that nobody reads.
func TestEndBlocked(t *testing.T) {
	one := serve(t, func(c *net.TCPConn) { c.Write(make([]byte, 64<<20)) })
	r := start(t, options{}, one)
	client := r.dial(t)
	stuck(t, r)
	if n := r.End(one, "test"); n != 1 {
		t.Errorf("%d sessions were ended, want 1", n)
	}
	wantReset(t, readError(client))
	r.wants(t, "Connected Answered Ended")
}

// TestShed wants those that were idle longest to be ended in order, no more than asked for, and no others.
func TestShed(t *testing.T) {
	echo, other := serve(t, echoes), serve(t, echoes)
	r := start(t, options{}, other)
	stranger := r.dial(t)
	exchange(t, stranger, "hello")
	r.set(echo)
	var clients []*net.TCPConn
	for i := range 10 {
		clients = append(clients, r.dial(t))
		exchange(t, clients[i], "hello")
	}
	for _, i := range []int{7, 3, 9, 0, 1, 5, 2, 8, 4, 6} { // this is the order of how long they are idle
		time.Sleep(5 * time.Millisecond) // it is the time that counts
		exchange(t, clients[i], "again")
	}
	if n := r.Shed(loop.Shed{Backend: echo, Most: 3, Quiet: time.Hour, Settled: time.Hour}); n != 0 {
		t.Errorf("%d sessions were shed that were not idle for an hour", n)
	}
	if n := r.Shed(loop.Shed{Backend: echo, Most: 3, Quiet: time.Millisecond}); n != 3 {
		t.Errorf("%d sessions were shed, want 3", n)
	}
	for i, c := range clients {
		if i == 7 || i == 3 || i == 9 {
			wantEnd(t, c)
		} else {
			exchange(t, c, fmt.Sprint("still there ", i))
		}
	}
	if n := r.Shed(loop.Shed{Backend: echo, Most: 100, Settled: time.Nanosecond}); n != 7 {
		t.Errorf("%d sessions were shed, want the other 7", n)
	}
	exchange(t, stranger, "still there")
	eventually(t, "all are counted", func() bool { return r.Stats().Ended[loop.ShedByCaller] == 10 })
}

// TestShedTellsTheBackend wants the backend to see an orderly end too, and the session to be gone soon even if nobody
// closes.
func TestShedTellsTheBackend(t *testing.T) {
	ends := make(chan error, 1)
	stay := make(chan struct{})
	backend := serve(t, func(c *net.TCPConn) {
		io.WriteString(c, "hello")
		ends <- readError(c)
		<-stay
	})
	t.Cleanup(func() { close(stay) })
	r := start(t, options{}, backend)
	client := r.dial(t)
	io.ReadFull(client, make([]byte, 5))
	if n := shedOne(t, r, backend); n != 1 {
		t.Fatalf("%d sessions were shed, want 1", n)
	}
	if err := <-ends; err != nil {
		t.Errorf("the backend got %v, want an orderly end", err)
	}
	wantEnd(t, client)
	r.wants(t, "Connected Answered Ended")
}

// shedOne sheds one session as soon as its last byte is old enough.
func shedOne(t *testing.T, r *running, backend netip.AddrPort) (n int) {
	t.Helper()
	eventually(t, "a session is shed", func() bool {
		n = r.Shed(loop.Shed{Backend: backend, Most: 1, Quiet: time.Millisecond, Settled: time.Millisecond})
		return n > 0
	})
	return n
}

// TestShedLeavesRequests has a client wait for an answer: its session is not shed before it has come.
func TestShedLeavesRequests(t *testing.T) {
	answer := make(chan struct{})
	backend := serve(t, func(c *net.TCPConn) {
		for b := make([]byte, 5); ; io.WriteString(c, "there") {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			<-answer
		}
	})
	r := start(t, options{}, backend)
	client := r.dial(t)
	for range 3 {
		io.WriteString(client, "hello")
		eventually(t, "the request has arrived", func() bool {
			return r.Traffic()[backend].In%5 == 0 && r.Traffic()[backend].In > r.Traffic()[backend].Out
		})
		time.Sleep(5 * time.Millisecond) // it is the time that must not count
		if n := r.Shed(loop.Shed{Backend: backend, Most: 1, Quiet: time.Hour, Settled: time.Nanosecond}); n != 0 {
			t.Fatalf("%d sessions were shed that wait for an answer", n)
		}
		answer <- struct{}{}
		if b := make([]byte, 5); !reads(client, b) || string(b) != "there" {
			t.Fatalf("got %q, want an answer", b)
		}
	}
	shedOne(t, r, backend)
	wantEnd(t, client)
}

// TestShedOrder has backends talk to all clients, one of which last spoke before the others: it is shed first, though
// the backend has just spoken to it.
func TestShedOrder(t *testing.T) {
	conns := make(chan *net.TCPConn, 3)
	backend := serve(t, func(c *net.TCPConn) { conns <- c; echoes(c) })
	r := start(t, options{}, backend)
	var near, far []*net.TCPConn
	for i := range 3 {
		near = append(near, r.dial(t))
		exchange(t, near[i], "hello")
		far = append(far, <-conns)
	}
	for _, i := range []int{1, 0, 2} {
		time.Sleep(5 * time.Millisecond) // it is the time that counts
		exchange(t, near[i], "again")
	}
	for _, i := range []int{0, 2, 1} {
		time.Sleep(5 * time.Millisecond) // the same
		io.WriteString(far[i], "news")
		io.ReadFull(near[i], make([]byte, 4))
	}
	time.Sleep(20 * time.Millisecond) // so that nobody is in the middle of something
	if n := r.Shed(loop.Shed{Backend: backend, Most: 1, Quiet: time.Hour, Listening: time.Millisecond}); n != 1 {
		t.Errorf("%d sessions were shed, want 1", n)
	}
	wantEnd(t, near[1])
	for _, i := range []int{0, 2} {
		exchange(t, near[i], "still there")
	}
}

// TestShedLeavesOpening wants sessions that have not begun to be left alone.
func TestShedLeavesOpening(t *testing.T) {
	quiet, _ := silent(t)
	hole := blackHole(t)
	r := start(t, options{timing: loop.Timing{Hello: time.Hour, Connect: time.Hour}}, quiet)
	r.dial(t) // says nothing
	io.WriteString(r.dial(t), helloOf(20))
	eventually(t, "both are connected", func() bool { s, _ := r.story(); return len(s) == 2 && s[0] == "Connected" && s[1] == "Connected" })
	r.set(hole)
	r.dial(t)
	eventually(t, "the third is connecting", func() bool { s, _ := r.story(); return len(s) == 3 })
	time.Sleep(5 * time.Millisecond) // it is the time that must not count
	for _, b := range []netip.AddrPort{quiet, hole} {
		if n := r.Shed(loop.Shed{Backend: b, Most: 10, Quiet: time.Nanosecond, Settled: time.Nanosecond}); n != 0 {
			t.Errorf("%d sessions of %v were shed that have not begun", n, b)
		}
	}
}

// TestShedLosesNothing has a client that reads late what came before the end: it gets all.
func TestShedLosesNothing(t *testing.T) {
	for _, size := range []int64{100 << 10, 32 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			backend := serve(t, func(c *net.TCPConn) {
				io.Copy(struct{ io.Writer }{c}, newFlow(1, size))
				keeps(c)
			})
			r := start(t, options{}, backend)
			client := r.dial(t)
			stuck(t, r)
			r.Shed(loop.Shed{Backend: backend, Most: 1, Quiet: time.Nanosecond, Settled: time.Nanosecond})
			time.Sleep(time.Second) // a client that reads late
			got, err := sumOf(io.LimitReader(client, size))
			wantFlow(t, "client", heard{got, err}, 1, size)
			if size < 1<<20 { // it was idle
				wantEnd(t, client)
			}
		})
	}
}

// TestTraffic wants exact counts of what goes to and from each backend.
func TestTraffic(t *testing.T) {
	one := serve(t, func(c *net.TCPConn) {
		for b := make([]byte, 5); ; io.WriteString(c, "answer!") {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
		}
	})
	r := start(t, options{}, one)
	if !r.LastByte(one).IsZero() {
		t.Error("a byte came from a backend that nobody has used")
	}
	begin := time.Now()
	for range 3 {
		c := r.dial(t)
		for range 4 {
			io.WriteString(c, "hello")
			io.ReadFull(c, make([]byte, 7))
		}
	}
	eventually(t, "all is counted", func() bool { return r.Traffic()[one].Out == 12*7 })
	got := r.Traffic()[one]
	if got.Sessions != 3 || got.In != 12*5 || got.LastByte.Before(begin.Add(-time.Second)) || got.LastByte.After(time.Now().Add(time.Second)) {
		t.Errorf("got %+v, want 3 sessions and 60 bytes to it", got)
	}
	if last := r.LastByte(one); last.Before(got.LastByte) {
		t.Errorf("the last byte came at %v, and at %v before", last, got.LastByte)
	}
	for _, s := range r.Sessions(2) {
		if s.Backend != one || s.In != 20 || s.Out != 28 || s.Listener != "front" {
			t.Errorf("got %+v, want 20 and 28 bytes of front to %v", s, one)
		}
	}
	if n := len(r.Sessions(2)); n != 2 {
		t.Errorf("got %d sessions, want no more than 2", n)
	}
}

// TestShedYoung wants sessions that have not lived long to be left alone.
func TestShedYoung(t *testing.T) {
	echo := serve(t, echoes)
	r := start(t, options{}, echo)
	client := r.dial(t)
	exchange(t, client, "hello")
	time.Sleep(5 * time.Millisecond) // it is the time that must not count
	if n := r.Shed(loop.Shed{Backend: echo, Most: 1, Age: time.Hour, Quiet: time.Nanosecond}); n != 0 {
		t.Error("a session was shed that is not an hour old")
	}
	exchange(t, client, "still there")
}

// TestShedListening has a client that only listens, and one that asks all the time: the first is shed though its backend
// does not stop to speak, and hears all that was said before the end; the second never is.
func TestShedListening(t *testing.T) {
	const between, silence = 20 * time.Millisecond, 300 * time.Millisecond
	talks := serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 5))
		for {
			if _, err := io.WriteString(c, "event"); err != nil {
				return
			}
			time.Sleep(between) // it is how often something happens
		}
	})
	echo := serve(t, echoes)
	r := start(t, options{}, echo)
	asking := r.dial(t)
	exchange(t, asking, "hello")
	r.set(talks)
	listening := r.dial(t)
	io.WriteString(listening, "hello")
	read := make(chan heard, 1)
	go func() {
		s, err := sumOf(listening)
		read <- heard{s, err}
	}()
	for shed := 0; shed == 0; {
		exchange(t, asking, "again")
		how := loop.Shed{Most: 1, Listening: silence, Settled: time.Hour, Quiet: time.Hour}
		how.Backend = echo
		if r.Shed(how) != 0 {
			t.Fatal("a session was shed whose client asks")
		}
		how.Backend = talks
		shed = r.Shed(how)
		time.Sleep(between) // it is how often the client asks
	}
	if got := <-read; got.err != nil || got.size == 0 || got.size%5 != 0 {
		t.Errorf("got %v and %v, want whole events and an orderly end", got.sum, got.err)
	}
	exchange(t, asking, "still there")
}

// TestEndOfTLS wants clients of TLS, who know by themselves whether all has come, to see an orderly end, which Go's HTTP/2
// client takes better than a reset; the backend sees a reset.
func TestEndOfTLS(t *testing.T) {
	errs := make(chan error, 1)
	backend := serve(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 100))
		io.WriteString(c, "answer")
		errs <- readError(c)
	})
	r := start(t, options{}, backend)
	client := r.dial(t)
	io.WriteString(client, helloOf(20))
	io.ReadFull(client, make([]byte, 6))
	if n := r.End(backend, "test"); n != 1 {
		t.Errorf("%d sessions were ended, want 1", n)
	}
	wantReset(t, <-errs)
	wantEnd(t, client)
	client.Close()
	r.wants(t, "Connected Answered Ended")
	eventually(t, "it is counted", func() bool { return r.Stats().Ended[loop.EndedByCaller] == 1 })
}
