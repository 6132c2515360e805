package httpproxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

const (
	// connBuffer is how much is read from a connection at once while bulk data flows.
	connBuffer = 64 << 10
	// stillBulk is how much such a read must have got for the next one to be one too.
	stillBulk = 16 << 10
)

// BufferDial returns a dial function whose connections are *BufferedConn. It belongs below TLS: crypto/tls reads one record
// (16 KiB) at a time, which is four times the system calls, and nobody can tell what waits behind it.
func BufferDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(ctx context.Context, network, addr string) (net.Conn, error) {
	pool := &sync.Pool{New: func() any { return new([connBuffer]byte) }}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &BufferedConn{Conn: conn, pool: pool}, nil
	}
}

// BufferedConn is a connection that reads ahead while reads come back filled, and knows how much it has. It takes a buffer
// only then, so that idle connections cost nothing.
type BufferedConn struct {
	net.Conn
	pool *sync.Pool

	bulk   bool              // the last read was filled: there is probably more
	buf    *[connBuffer]byte // nil: nothing was read ahead
	next   []byte            // of buf: what was read ahead
	err    error             // what comes after it
	atHand atomic.Int64      // len(next), for others to see

	written atomic.Int64 // bytes

	mu   sync.Mutex             // guards tell
	tell map[*exchange]struct{} // those that are told when the connection is closed: of HTTP/2, any number share it
}

// Buffered returns how many bytes can be read without waiting, at least. It may be called at any time.
func (c *BufferedConn) Buffered() int { return int(c.atHand.Load()) }

// Write implements net.Conn.
func (c *BufferedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// Written returns how many bytes were written: none means that the peer knows nothing of a request. It may be called at any
// time.
func (c *BufferedConn) Written() int64 { return c.written.Load() }

// Close implements net.Conn.
func (c *BufferedConn) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	tell := c.tell
	c.tell = nil
	c.mu.Unlock()
	for x := range tell {
		x.interrupt()
	}
	return err
}

// remember has an exchange told when the connection is closed.
func (c *BufferedConn) remember(x *exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tell == nil {
		c.tell = make(map[*exchange]struct{}, 1)
	}
	c.tell[x] = struct{}{}
}

// forget ends that.
func (c *BufferedConn) forget(x *exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tell, x)
}

// NetConn returns the connection below, as that of crypto/tls does.
func (c *BufferedConn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the direction of the writes if the connection below can; else it fails with errors.ErrUnsupported.
func (c *BufferedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read implements net.Conn.
func (c *BufferedConn) Read(p []byte) (int, error) {
	switch {
	case c.buf != nil:
		return c.take(p)
	case !c.bulk || len(p) >= connBuffer:
		n, err := c.Conn.Read(p)
		c.bulk = n == len(p)
		return n, err
	}
	c.buf = c.pool.Get().(*[connBuffer]byte)
	n, err := c.Conn.Read(c.buf[:])
	c.bulk = n >= stillBulk
	c.next, c.err = c.buf[:n], err
	return c.take(p)
}

// take returns what was read ahead.
func (c *BufferedConn) take(p []byte) (n int, err error) {
	n = copy(p, c.next)
	c.next = c.next[n:]
	c.atHand.Store(int64(len(c.next)))
	if len(c.next) == 0 {
		c.pool.Put(c.buf)
		err = c.err
		c.buf, c.next, c.err = nil, nil, nil
	}
	return n, err
}

// bufferedBelow returns the BufferedConn that a connection rests on, or nil.
func bufferedBelow(c net.Conn) *BufferedConn {
	for c != nil {
		if b, ok := c.(*BufferedConn); ok {
			return b
		}
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = below.NetConn()
	}
	return nil
}
