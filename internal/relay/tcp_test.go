package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/relay"
)

const within = 10 * time.Second // what is waited for takes milliseconds

// listen opens a TCP listener that ends with the test.
func listen(t testing.TB) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// server starts a TCP server that runs fn for each connection.
func server(t testing.TB, fn func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, at := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fn(c.(*net.TCPConn))
			}()
		}
	}()
	return at
}

// absent is an address where nobody listens.
func absent(t *testing.T) netip.AddrPort {
	t.Helper()
	l, at := listen(t)
	l.Close()
	return at
}

// among picks the first of the backends that has not failed.
func among(backends ...netip.AddrPort) func(netip.AddrPort, []netip.AddrPort) (netip.AddrPort, bool) {
	return func(_ netip.AddrPort, failed []netip.AddrPort) (netip.AddrPort, bool) {
		for _, b := range backends {
			if !slices.Contains(failed, b) {
				return b, true
			}
		}
		return netip.AddrPort{}, false
	}
}

// running is a relay that runs until the test ends.
type running struct {
	at       netip.AddrPort
	listener io.Closer
	slots    *relay.Slots
	cancel   context.CancelFunc
	ended    chan struct{}
}

// wait waits for Run to return.
func (r *running) wait(t testing.TB) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(within):
		t.Fatal("the relay does not end")
	}
	if n := r.slots.Taken(); n != 0 {
		t.Errorf("%d slots are taken at the end", n)
	}
}

func startTCP(t testing.TB, c relay.Config) *running {
	t.Helper()
	l, at := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	if c.Slots == nil {
		c.Slots = relay.NewSlots(8)
	}
	c.Log = slog.New(slog.DiscardHandler)
	r := &running{at, l, c.Slots, cancel, make(chan struct{})}
	go func() {
		defer close(r.ended)
		if err := relay.NewTCP(l, c).Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		r.wait(t)
	})
	return r
}

func dial(t testing.TB, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", at.String(), within)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(within))
	return c.(*net.TCPConn)
}

// ask reads what a server says to a new client. A reset may come before the client knows that it is connected.
func ask(at netip.AddrPort) (string, error) {
	c, err := net.DialTimeout("tcp", at.String(), within)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(within))
	b, err := io.ReadAll(c)
	return string(b), err
}

func says(text string) func(*net.TCPConn) {
	return func(c *net.TCPConn) { io.WriteString(c, text) }
}

// wantReset wants the peer to have reset a connection, not to have closed it in order.
func wantReset(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// TestTCPHalfClose has each side say that it has sent all before the other one begins.
func TestTCPHalfClose(t *testing.T) {
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	first, second := func(c *net.TCPConn) ([]byte, error) {
		if _, err := c.Write(sent); err != nil {
			return nil, err
		}
		if err := c.CloseWrite(); err != nil {
			return nil, err
		}
		return io.ReadAll(c)
	}, func(c *net.TCPConn) ([]byte, error) {
		got, err := io.ReadAll(c)
		if err != nil {
			return nil, err
		}
		_, err = c.Write(got)
		return got, err
	}
	for name, sides := range map[string][2]func(*net.TCPConn) ([]byte, error){
		"client first": {first, second}, "backend first": {second, first},
	} {
		t.Run(name, func(t *testing.T) {
			type result struct {
				got []byte
				err error
			}
			results := make(chan result, 1)
			r := startTCP(t, relay.Config{Pick: among(server(t, func(c *net.TCPConn) {
				got, err := sides[1](c)
				results <- result{got, err}
			}))})
			client := dial(t, r.at)
			got, err := sides[0](client)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("client: got %d bytes of %d, or others, and %v", len(got), len(sent), err)
			}
			client.Close()
			if at := <-results; at.err != nil || !bytes.Equal(at.got, sent) {
				t.Errorf("backend: got %d bytes of %d, or others, and %v", len(at.got), len(sent), at.err)
			}
		})
	}
}

func TestTCPTriesOtherBackends(t *testing.T) {
	here := server(t, says("here"))
	for _, c := range []struct {
		name     string
		backends []netip.AddrPort
		want     string
	}{
		{"the first one", []netip.AddrPort{here}, "here"},
		{"the third one", []netip.AddrPort{absent(t), absent(t), here}, "here"},
		{"no more than three", []netip.AddrPort{absent(t), absent(t), absent(t), here}, ""},
		{"there is none", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ask(startTCP(t, relay.Config{Pick: among(c.backends...)}).at)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if c.want == "" {
				wantReset(t, err)
			}
		})
	}
}

// TestTCPKnowsItsClients wants the client's address to be told when a backend is chosen.
func TestTCPKnowsItsClients(t *testing.T) {
	picked := make(chan netip.AddrPort, 1)
	here := server(t, says("here"))
	r := startTCP(t, relay.Config{Pick: func(client netip.AddrPort, _ []netip.AddrPort) (netip.AddrPort, bool) {
		picked <- client
		return here, true
	}})
	client := dial(t, r.at)
	if got, want := <-picked, client.LocalAddr().(*net.TCPAddr).AddrPort(); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestTCPResets wants an early end of one side to look like one to the other.
func TestTCPResets(t *testing.T) {
	abort := func(c *net.TCPConn) {
		c.SetLinger(0)
		c.Close()
	}
	t.Run("of the backend", func(t *testing.T) {
		r := startTCP(t, relay.Config{Pick: among(server(t, abort))})
		_, err := ask(r.at)
		wantReset(t, err)
	})
	t.Run("of the client", func(t *testing.T) {
		errs := make(chan error, 1)
		r := startTCP(t, relay.Config{Pick: among(server(t, func(c *net.TCPConn) {
			c.Write([]byte("go"))
			_, err := io.ReadAll(c)
			errs <- err
		}))})
		client := dial(t, r.at)
		io.ReadFull(client, make([]byte, 2))
		abort(client)
		wantReset(t, <-errs)
	})
}

// echoes answers what it hears until the client has said all.
func echoes(c *net.TCPConn) { io.Copy(c, c) }

func exchange(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q and %v, want %q", got, err, text)
	}
}

// TestTCPDrains closes the listener: nobody new gets in, and the connection that exists goes on to its end.
func TestTCPDrains(t *testing.T) {
	r := startTCP(t, relay.Config{Pick: among(server(t, echoes))})
	client := dial(t, r.at)
	exchange(t, client, "before")
	r.listener.Close()
	if c, err := net.Dial("tcp", r.at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v and %v, want to be refused", c, err)
	}
	exchange(t, client, "after")
	select {
	case <-r.ended:
		t.Error("the relay has ended before its connection")
	default:
	}
	client.Close()
	r.wait(t)
}

// TestTCPEnds ends the context: connections are reset, and nothing runs any more.
func TestTCPEnds(t *testing.T) {
	r := startTCP(t, relay.Config{Pick: among(server(t, echoes))})
	client := dial(t, r.at)
	exchange(t, client, "before")
	r.cancel()
	r.wait(t)
	_, err := io.ReadAll(client)
	wantReset(t, err)
}

// TestTCPEndsWhileDialing has a backend that does not answer.
func TestTCPEndsWhileDialing(t *testing.T) {
	dialing := make(chan struct{})
	r := startTCP(t, relay.Config{
		Pick: among(netip.MustParseAddrPort("192.0.2.1:80")),
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(dialing)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	client := dial(t, r.at)
	<-dialing
	r.cancel()
	r.wait(t)
	_, err := io.ReadAll(client)
	wantReset(t, err)
}

// TestTCPIsBounded has one slot for two clients.
func TestTCPIsBounded(t *testing.T) {
	r := startTCP(t, relay.Config{Pick: among(server(t, echoes)), Slots: relay.NewSlots(1)})
	client := dial(t, r.at)
	exchange(t, client, "first")
	_, err := ask(r.at)
	wantReset(t, err)
	client.CloseWrite()
	io.ReadAll(client)
	client.Close()
	for deadline := time.Now().Add(within); r.slots.Taken() > 0; time.Sleep(time.Millisecond) { // nobody tells of it
		if time.Now().After(deadline) {
			t.Fatal("the slot stays taken")
		}
	}
	exchange(t, dial(t, r.at), "second")
}
