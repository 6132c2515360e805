package outbound

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// writePiece is how many bytes a watched connection writes at once: any target takes so many within an idle time that is
// of use.
const writePiece = 16 << 10

// watchedConn is a connection that is closed when no byte has passed in either direction for some time. It needs no
// deadlines, which not every egress has.
type watchedConn struct {
	net.Conn
	idle  time.Duration
	start time.Time
	last  atomic.Int64 // when a byte passed, after start
	late  atomic.Bool  // closed for its silence
	timer *time.Timer
}

func watch(conn net.Conn, idle time.Duration) *watchedConn {
	c := &watchedConn{Conn: conn, idle: idle, start: time.Now()}
	ready := make(chan struct{}) // the timer may fire before it is known
	c.timer = time.AfterFunc(idle, func() { <-ready; c.look() })
	close(ready)
	return c
}

// look closes the connection if it was silent for too long, else it looks again when it would be.
func (c *watchedConn) look() {
	if left := c.idle - (time.Since(c.start) - time.Duration(c.last.Load())); left > 0 {
		c.timer.Reset(left)
		return
	}
	c.late.Store(true)
	c.Conn.Close()
}

func (c *watchedConn) passed(n int, err error) (int, error) {
	if n > 0 {
		c.last.Store(int64(time.Since(c.start)))
	}
	if err != nil && c.late.Load() {
		err = &net.OpError{Op: "read", Net: "tcp", Addr: c.RemoteAddr(), Err: os.ErrDeadlineExceeded}
	}
	return n, err
}

// Read implements net.Conn.
func (c *watchedConn) Read(p []byte) (int, error) { return c.passed(c.Conn.Read(p)) }

// Write implements net.Conn. It writes in pieces: how far a single large write has got cannot be seen.
func (c *watchedConn) Write(p []byte) (n int, err error) {
	for first := true; first || n < len(p) && err == nil; first = false {
		var piece int
		piece, err = c.passed(c.Conn.Write(p[n:min(len(p), n+writePiece)]))
		n += piece
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.timer.Stop()
	return c.Conn.Close()
}

// NetConn returns the connection below, as that of crypto/tls does.
func (c *watchedConn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the direction of the writes if the connection below can; else it fails with errors.ErrUnsupported.
func (c *watchedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// tunnelledConn is a connection that knows no addresses, such as konnectivity's. Callers of net.Conn expect some.
type tunnelledConn struct {
	net.Conn
	to net.Addr
}

// addressed gives a connection addresses if it has none.
func addressed(conn net.Conn, to netip.AddrPort) net.Conn {
	if conn.RemoteAddr() != nil && conn.LocalAddr() != nil {
		return conn
	}
	return &tunnelledConn{conn, net.TCPAddrFromAddrPort(to)}
}

// RemoteAddr returns the target's address.
func (c *tunnelledConn) RemoteAddr() net.Addr { return c.to }

// LocalAddr returns no particular address: what the target sees as its peer is the egress's.
func (c *tunnelledConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }

// NetConn returns the connection below, as that of crypto/tls does.
func (c *tunnelledConn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the direction of the writes if the connection below can; else it fails with errors.ErrUnsupported.
func (c *tunnelledConn) CloseWrite() error { return closeWrite(c.Conn) }
