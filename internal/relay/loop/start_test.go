//go:build linux

package loop_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"varco.dev/internal/relay/loop"
)

const within = 10 * time.Second // what is waited for takes milliseconds

// families are the loopback addresses of both IP families.
var families = map[string]string{"IPv4": "127.0.0.1:0", "IPv6": "[::1]:0"}

const loopback = "127.0.0.1:0"

// listen opens a TCP listener that ends with the test.
func listen(t testing.TB, address string) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	return listenAs(t, address, false)
}

// listenAs opens one that may be of MPTCP, which is what Go's own listeners are by default.
func listenAs(t testing.TB, address string, multipath bool) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	var c net.ListenConfig
	c.SetMultipathTCP(multipath)
	l, err := c.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), l.Addr().(*net.TCPAddr).AddrPort()
}

// serve starts a TCP server on loopback that runs fn for each connection.
func serve(t testing.TB, fn func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	return serveAt(t, loopback, fn)
}

func serveAt(t testing.TB, address string, fn func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, at := listen(t, address)
	go accept(l, fn)
	return at
}

// accept runs fn for each connection until the listener is closed.
func accept(l net.Listener, fn func(*net.TCPConn)) {
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
}

// absent is an address where nobody listens.
func absent(t testing.TB) netip.AddrPort {
	t.Helper()
	l, at := listen(t, loopback)
	l.Close()
	return at
}

// running is a relay that runs until the test ends, with one listener on loopback.
type running struct {
	*loop.Relay
	*book
	at     netip.AddrPort
	cancel context.CancelFunc
	ended  chan struct{}
}

// options are changes of what a relay is made of.
type options struct {
	listen   string // default: loopback
	limits   loop.Limits
	timing   loop.Timing
	listener loop.Listener // all but Net
	workers  int           // default: one for each processor
}

// start runs a relay in front of backends.
func start(t testing.TB, o options, backends ...netip.AddrPort) *running {
	t.Helper()
	if o.workers == 0 {
		o.workers = runtime.NumCPU()
	}
	r := &running{book: newBook(backends...), ended: make(chan struct{})}
	r.Relay = loop.New(loop.Config{
		Workers: o.workers, Balancer: r.book, Limits: o.limits, Timing: o.timing, Log: slog.New(slog.DiscardHandler),
	})
	if o.listen == "" {
		o.listen = loopback
	}
	if o.listener.Name == "" {
		o.listener.Name = "front"
	}
	o.listener.Net, r.at = listen(t, o.listen)
	if err := r.Listen(o.listener); err != nil {
		t.Fatal(err)
	}
	r.run(t)
	return r
}

// run runs the relay until the test ends, and looks then whether the Balancer has heard all that it must.
func (r *running) run(t testing.TB) {
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(r.ended)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		r.cancel()
		r.wait(t)
		r.book.check(t)
	})
}

// wait waits for Run to return.
func (r *running) wait(t testing.TB) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(within):
		t.Fatal("the relay does not end")
	}
}

// dial connects to the relay.
func (r *running) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	return dial(t, r.at)
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

func addrOf(a net.Addr) netip.AddrPort {
	at := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
