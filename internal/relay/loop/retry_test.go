//go:build linux

package loop_test

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/relay/loop"
)

// quick are times that suit a test.
var quick = loop.Timing{Connect: 150 * time.Millisecond, Hello: 150 * time.Millisecond}

// TestRetries has backends that cannot be reached before one that can.
func TestRetries(t *testing.T) {
	here := serve(t, says("here"))
	for _, c := range []struct {
		name     string
		backends []netip.AddrPort
		want     string
		story    []string
	}{
		{"the first one", []netip.AddrPort{here}, "here", []string{"Connected Answered Ended"}},
		{"the second one, the first refuses", []netip.AddrPort{absent(t), here}, "here",
			[]string{"Refused Ended", "Connected Answered Ended"}},
		{"the third one", []netip.AddrPort{absent(t), absent(t), here}, "here",
			[]string{"Refused Ended", "Refused Ended", "Connected Answered Ended"}},
		{"the second one, the first drops", []netip.AddrPort{blackHole(t), here}, "here",
			[]string{"Unreachable Ended", "Connected Answered Ended"}},
		{"no route to the first", []netip.AddrPort{netip.MustParseAddrPort("255.255.255.255:1"), here}, "here",
			[]string{"Unreachable Ended", "Connected Answered Ended"}},
		{"all refuse", []netip.AddrPort{absent(t), absent(t)}, "", []string{"Refused Ended", "Refused Ended"}},
		{"there is none", nil, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, options{timing: quick}, c.backends...)
			got, err := ask(r.at)
			if got != c.want {
				t.Errorf("got %q and %v, want %q", got, err, c.want)
			}
			if c.want == "" {
				wantReset(t, err)
			}
			r.wants(t, c.story...)
			if s := r.Stats(); s.Retried != uint64(max(0, len(c.story)-1)) {
				t.Errorf("%d were retried, want %d", s.Retried, len(c.story)-1)
			}
		})
	}
}

// TestRetriesOfMany has many clients get another backend at the same time, which speaks before the relay knows that it is
// connected: each of them hears it.
func TestRetriesOfMany(t *testing.T) {
	r := start(t, options{timing: quick}, blackHole(t), serve(t, says("here")))
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if got, err := ask(r.at); got != "here" {
				t.Errorf("got %q and %v", got, err)
			}
		})
	}
	wg.Wait()
}

// TestRetriesAreBounded has more backends that refuse than may be tried for one client.
func TestRetriesAreBounded(t *testing.T) {
	var backends []netip.AddrPort
	for range 100 {
		backends = append(backends, absent(t))
	}
	r := start(t, options{timing: quick}, backends...)
	_, err := ask(r.at)
	wantReset(t, err)
	if s, _ := r.story(); len(s) != loop.DefaultTries {
		t.Errorf("%d were tried, want %d", len(s), loop.DefaultTries)
	}
}

// TestTriedIsTold wants Pick to hear of all backends that this client has had.
func TestTriedIsTold(t *testing.T) {
	tried := make(chan []netip.AddrPort, 3)
	backends := []netip.AddrPort{absent(t), absent(t), serve(t, says("here"))}
	r := start(t, options{timing: quick}, backends...)
	r.tells(func(got []netip.AddrPort) { tried <- slices.Clone(got) })
	if got, err := ask(r.at); got != "here" {
		t.Errorf("got %q and %v", got, err)
	}
	for n := range 3 {
		if got := <-tried; len(got) != n || n > 0 && got[n-1] != backends[n-1] {
			t.Errorf("time %d: got %v, want the first of %v", n, got, backends)
		}
	}
}

// TestWaitsWhileRetrying has a client speak and close while no backend is connected yet: nothing is lost.
func TestWaitsWhileRetrying(t *testing.T) {
	for _, size := range []int64{5, 10 << 10, 4 << 20} {
		r := start(t, options{timing: quick}, blackHole(t), serve(t, echoes))
		client := r.dial(t)
		wantFlow(t, "client", both(client, 1, size), 1, size)
		r.wants(t, "Unreachable Ended", "Connected Answered Ended")
	}
}

// TestReplays has backends that take the first flight of TLS and do not answer: the next one gets it, and the client, which
// has a certificate, does not see a thing.
func TestReplays(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		name  string
		first func(*testing.T) netip.AddrPort
		story string
	}{
		{"silent", func(t *testing.T) netip.AddrPort { at, _ := silent(t); return at }, "Connected Silent Ended"},
		{"closes", func(t *testing.T) netip.AddrPort { return closer(t) }, "Connected Broken Ended"},
		{"resets", func(t *testing.T) netip.AddrPort { return resetter(t) }, "Connected Broken Ended"},
		{"refuses", func(t *testing.T) netip.AddrPort { return absent(t) }, "Refused Ended"},
		{"drops", func(t *testing.T) netip.AddrPort { return blackHole(t) }, "Unreachable Ended"},
	} {
		for name, long := range map[string]int{"short": 0, "long": 12 << 10} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				r := start(t, options{timing: quick}, c.first(t), a.serveTLS(t))
				if got, err := askTLS(r.dial(t), a.client(t, long)); got != "you are alice" || err != nil {
					t.Errorf("got %q and %v", got, err)
				}
				r.wants(t, c.story, "Connected Answered Ended")
			})
		}
	}
}

// TestReplaysTheSame wants the second backend to get the very bytes that the first one got, and no more.
func TestReplaysTheSame(t *testing.T) {
	first, flights := silent(t)
	flight := helloOf(5000)
	second := make(chan string, 1)
	r := start(t, options{timing: quick}, first, serve(t, func(c *net.TCPConn) {
		b := make([]byte, len(flight))
		io.ReadFull(c, b)
		io.WriteString(c, "here")
		more, _ := io.ReadAll(c)
		second <- string(b) + string(more)
	}))
	client := r.dial(t)
	for _, part := range []string{flight[:2], flight[2:100], flight[100:]} { // it may come in parts
		io.WriteString(client, part)
	}
	if b := make([]byte, 4); !reads(client, b) || string(b) != "here" {
		t.Errorf("got %q, want here", b)
	}
	io.WriteString(client, " and more")
	client.CloseWrite()
	if got := <-flights; got != flight {
		t.Errorf("the silent one got %d bytes, want %d", len(got), len(flight))
	}
	if got := <-second; got != flight+" and more" {
		t.Errorf("the second one got %d bytes, want %d", len(got), len(flight)+9)
	}
	if s := r.Stats(); s.Replayed != 1 || s.HelloTimeouts != 1 {
		t.Errorf("got %+v, want one replay after one timeout", s)
	}
}

func reads(r io.Reader, b []byte) bool {
	_, err := io.ReadFull(r, b)
	return err == nil
}

// TestSilentAndAlone has no other backend: the silent one keeps the client, and may answer late.
func TestSilentAndAlone(t *testing.T) {
	answer := make(chan struct{})
	r := start(t, options{timing: quick}, serve(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 100))
		<-answer
		io.WriteString(c, "late")
	}))
	client := r.dial(t)
	io.WriteString(client, helloOf(20))
	r.wants(t, "Connected Silent")
	close(answer)
	if got, err := io.ReadAll(client); string(got) != "late" || err != nil {
		t.Errorf("got %q and %v, want late", got, err)
	}
	client.Close()
	r.wants(t, "Connected Silent Answered Ended")
}

// TestDoesNotReplay has what must not be sent twice: each backend gets it once.
func TestDoesNotReplay(t *testing.T) {
	for _, c := range []struct {
		name, says, answer, story string
	}{
		{"what is not TLS", "GET / HTTP/1.1\r\n\r\n", "", "Connected Ended"},
		{"what is not TLS after all", "\x16\x03\x01\x00\x05hello", "", "Connected Ended"},
		{"too long a flight", helloOf(17 << 10), "", "Connected Ended"},
		{"early data", helloOf(100) + "\x17\x03\x03\x00\x05hello", "", "Connected Broken Ended"},
		{"what was answered", helloOf(20), "\x16", "Connected Answered Ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			other, flights := silent(t)
			r := start(t, options{timing: quick}, serve(t, func(conn *net.TCPConn) {
				io.ReadFull(conn, make([]byte, len(c.says)))
				io.WriteString(conn, c.answer)
			}), other)
			client := r.dial(t)
			io.WriteString(client, c.says)
			if got, _ := io.ReadAll(client); string(got) != c.answer {
				t.Errorf("got %q, want %q", got, c.answer)
			}
			client.Close()
			r.wants(t, c.story)
			select {
			case got := <-flights:
				t.Errorf("the other backend got %d bytes", len(got))
			default:
			}
		})
	}
}

// TestPartOfHello has a client that does not say all of its hello: the backend is not to blame, and the client is ended.
func TestPartOfHello(t *testing.T) {
	for name, says := range map[string]string{"a byte": "\x16", "half of it": helloOf(100)[:50], "all but a byte": helloOf(100)[:99]} {
		t.Run(name, func(t *testing.T) {
			timing := quick
			timing.Opening = 3 * quick.Hello
			at, _ := silent(t)
			r := start(t, options{timing: timing}, at, at)
			client := r.dial(t)
			io.WriteString(client, says)
			wantReset(t, readError(client))
			r.wants(t, "Connected Ended")
			eventually(t, "it is counted", func() bool { return r.Stats().Ended[loop.OpeningSlow] == 1 })
			if n := r.Stats().HelloTimeouts; n != 0 {
				t.Errorf("%d hellos had no answer, want none", n)
			}
		})
	}
}

// TestStoppedRelay has the relay's process stand still while many backends answer: nobody but itself is late.
func TestStoppedRelay(t *testing.T) {
	const clients = 700 // more than a loop is told of at once
	answer, waiting := make(chan struct{}), make(chan struct{}, clients)
	backend := serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 20))
		waiting <- struct{}{}
		<-answer
		io.WriteString(c, "here")
		keeps(c)
	})
	relay := startProcess(t, "relay", nil)
	relay.tell(t, "relay %v %v", loopback, backend)
	at := netip.MustParseAddrPort(relay.hear(t))
	var all []*net.TCPConn
	for range clients {
		all = append(all, dial(t, at))
	}
	for _, c := range all {
		io.WriteString(c, helloOf(20))
	}
	for range clients {
		<-waiting
	}
	relay.Process.Signal(syscall.SIGSTOP)
	close(answer)
	time.Sleep(loop.DefaultHello + 500*time.Millisecond) // it is the time that must not count
	relay.Process.Signal(syscall.SIGCONT)
	for answered := 0; answered < clients; {
		switch line := relay.hear(t); {
		case strings.HasSuffix(line, " Answered"):
			answered++
		case strings.HasSuffix(line, " Silent"):
			t.Fatalf("after %d answers: %s", answered, line)
		}
	}
}

// TestSlowWithoutTLS has a backend that answers what is not TLS late: it is waited for, and nobody else is asked.
func TestSlowWithoutTLS(t *testing.T) {
	other, flights := silent(t)
	r := start(t, options{timing: quick}, serve(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 100))
		time.Sleep(3 * quick.Hello) // it is the time that must not count
		io.WriteString(c, "late")
	}), other)
	client := r.dial(t)
	io.WriteString(client, "hello")
	if got, err := io.ReadAll(client); string(got) != "late" || err != nil {
		t.Errorf("got %q and %v, want late", got, err)
	}
	client.Close()
	r.wants(t, "Connected Answered Ended")
	select {
	case got := <-flights:
		t.Errorf("the other backend got %q", got)
	default:
	}
}

// TestNewsOfTheOneBefore has the loop be told at once of End, of a reset of the backend that is left by it, and that another
// one is connected that is left as well: none of it is news of the next backend, which drops SYNs.
func TestNewsOfTheOneBefore(t *testing.T) {
	conns := make(chan *net.TCPConn, 2)
	left := serve(t, func(c *net.TCPConn) { conns <- c; c.Read(make([]byte, 100)); time.Sleep(within) }) // until the test resets it
	r := start(t, options{workers: 1, timing: loop.Timing{Connect: time.Hour, Hello: time.Hour}}, left)
	io.WriteString(r.dial(t), helloOf(20))
	r.wants(t, "Connected")
	r.set(left, blackHole(t))
	inPick, goOn := make(chan struct{}), make(chan struct{})
	r.tells(func(tried []netip.AddrPort) {
		if len(tried) == 0 {
			close(inPick)
			<-goOn // the loop waits, too
		}
	})
	r.dial(t)
	<-inPick
	ended := make(chan int)
	go func() { ended <- r.End(left, "test") }()
	time.Sleep(10 * time.Millisecond) // so that End is the first news
	abort(<-conns)
	close(goOn)
	if n := <-ended; n != 2 {
		t.Errorf("%d sessions were ended, want 2", n)
	}
	for range 2 { // when the loop answers the second time it has heard all
		r.Sessions(1)
	}
	r.wants(t, "Connected Ended", "Ended", "", "")
}

// TestClientGoesWhileConnecting wants the attempt to end with its client, without waiting for the backend.
func TestClientGoesWhileConnecting(t *testing.T) {
	r := start(t, options{timing: loop.Timing{Connect: time.Hour}}, blackHole(t))
	client := r.dial(t)
	eventually(t, "a backend was picked", func() bool { s, _ := r.story(); return len(s) == 1 })
	abort(client)
	r.wants(t, "Ended")
}

// TestClientEndsWhileSilent has a client say its hello and no more, ever: its session does not wait for long.
func TestClientEndsWhileSilent(t *testing.T) {
	first := serve(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 100))
		time.Sleep(within) // the end is not answered either
	})
	r := start(t, options{timing: loop.Timing{Hello: time.Hour, Opening: 300 * time.Millisecond}}, first)
	client := r.dial(t)
	io.WriteString(client, helloOf(20))
	client.CloseWrite()
	r.wants(t, "Connected Ended")
	eventually(t, "it is counted", func() bool { return r.Stats().Ended[loop.OpeningSlow] == 1 })
}

// TestClientGoesWhileSilent is the same for a backend that does not answer.
func TestClientGoesWhileSilent(t *testing.T) {
	first, _ := silent(t)
	r := start(t, options{timing: loop.Timing{Hello: time.Hour}}, first, first)
	client := r.dial(t)
	io.WriteString(client, helloOf(20))
	r.wants(t, "Connected")
	abort(client)
	r.wants(t, "Connected Ended")
}
