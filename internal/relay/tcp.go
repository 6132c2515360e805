package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Pauses after an attempt to take in a client that has failed, as net/http: the process has no file descriptors, most
// likely.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// TCP relays the connections of a listener.
type TCP struct {
	listener net.Listener
	config   Config
}

// NewTCP returns a relay that does nothing before Run.
func NewTCP(l net.Listener, c Config) *TCP { return &TCP{listener: l, config: c.withDefaults()} }

// Run relays until the context ends, which ends all connections and closes the listener. If the listener is closed before,
// the connections that there are go on to their end. It returns nil when none is left.
func (t *TCP) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { t.listener.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	pause := minPause
	for {
		client, err := t.listener.Accept()
		switch {
		case err == nil:
			connections.Go(func() { t.serve(ctx, client) })
			pause = minPause
		case errors.Is(err, net.ErrClosed):
			return nil
		case !wait(ctx, pause):
			return nil
		default:
			t.config.Log.Debug("cannot take in a connection, trying again", "after", pause, "error", err)
			pause = min(2*pause, maxPause)
		}
	}
}

// wait returns false if the context ends before.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// serve relays one connection. A client that cannot be served is told so by a reset: an orderly end would look like an
// answer of no bytes.
func (t *TCP) serve(ctx context.Context, client net.Conn) {
	if !t.config.Slots.take() {
		t.config.Slots.full(t.config.Log)
		Reset(client)
		return
	}
	defer t.config.Slots.give()
	backend, at, err := t.config.connect(ctx, "tcp", addrOf(client.RemoteAddr()))
	if err != nil {
		t.config.Log.Debug("no backend for a connection", "client", client.RemoteAddr(), "error", err)
		Reset(client)
		return
	}
	if err := Join(ctx, client, backend); err != nil {
		t.config.Log.Debug("a connection has ended early", "client", client.RemoteAddr(), "backend", at, "error", err)
	}
}

// Join moves bytes both ways until both sides have said that no more will come, and closes both. An end of one side is
// passed on to the other alone (half-close, if it has CloseWrite). If anything fails, or the context ends, both sides are
// reset: neither may take what it has for all there was. A side that is not a connection but rests on one tells which
// (NetConn, as that of crypto/tls).
func Join(ctx context.Context, a, b io.ReadWriteCloser) error {
	stop := context.AfterFunc(ctx, func() { Reset(a); Reset(b) })
	defer stop()
	var errs [2]error
	half := func(err *error, dst, src io.ReadWriteCloser) {
		if *err = pour(dst, src); *err != nil {
			Reset(a)
			Reset(b)
		}
	}
	// What comes from a is read here: this goroutine has a stack that the handshake of TLS and a chain of handlers have made
	// large, and a new one, which waits for b, stays small.
	var other sync.WaitGroup
	other.Go(func() { half(&errs[1], a, b) })
	half(&errs[0], b, a)
	other.Wait()
	a.Close()
	b.Close()
	return errors.Join(errs[:]...)
}

// pour moves bytes one way to the end, and passes that on.
func pour(dst, src io.ReadWriteCloser) error {
	if err := move(dst, src); err != nil {
		return err
	}
	if h, ok := dst.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return dst.Close()
}

// Reset closes a connection so that the peer sees an error (RST). An orderly end of what rests on it is left out.
func Reset(c io.Closer) {
	if below, ok := c.(interface{ NetConn() net.Conn }); ok {
		if conn := below.NetConn(); conn != nil {
			Reset(conn)
			return
		}
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// addrOf returns the address of a TCP peer, or none.
func addrOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
