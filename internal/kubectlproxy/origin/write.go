package origin

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// sender is what the writes of a connection have between them and the session, where a write may hang as long as an app does
// not read: whoever waits for one must be able to leave, or a request that was given up would be held for as long.
type sender struct {
	writing  sync.Mutex // held by whoever writes
	frame    []byte     // being sent, or free if nothing is
	outgoing chan frame
	sent     chan error // what came of it
}

// frame is a SPDY data frame.
type frame struct {
	data []byte
	fin  bool
}

func newSender() sender { return sender{outgoing: make(chan frame), sent: make(chan error, 1)} }

// send moves frames into the session, one at a time, until the connection ends.
func (c *conn) send() {
	for {
		select {
		case <-c.closed:
			return
		case <-c.tunnel.lost:
			return
		case f := <-c.outgoing:
			c.sent <- c.data.WriteData(f.data, f.fin)
		}
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	written := 0
	for len(p) > 0 {
		if err := c.writable(); err != nil {
			return written, err
		}
		n := min(len(p), frameBytes)
		c.frame = append(c.frame[:0], p[:n]...)
		if err := c.pass(frame{data: c.frame}); err != nil {
			return written, err
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}

// pass returns when a frame is sent. If it returns earlier, the connection has ended, and the frame is no longer the caller's.
func (c *conn) pass(f frame) error {
	select {
	case c.outgoing <- f:
	case <-c.closed:
		return net.ErrClosed
	case <-c.tunnel.lost:
		return errTunnelLost
	}
	select {
	case err := <-c.sent:
		if err != nil {
			return fmt.Errorf("%w: %w", errTunnelLost, err)
		}
		return nil
	case <-c.closed:
		return net.ErrClosed
	case <-c.tunnel.lost:
		return errTunnelLost
	}
}

// writable is the error of writes to a connection that has ended: nothing else would tell, frames of a stream that is
// gone are dropped in silence. After a clean end of the other direction the app may still read.
func (c *conn) writable() error {
	select {
	case <-c.closed:
		return net.ErrClosed
	case <-c.tunnel.lost:
		return errTunnelLost
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halfClosed {
		return net.ErrClosed
	}
	if c.end != nil && c.end != io.EOF {
		return c.end
	}
	return nil
}

// CloseWrite tells the app that nothing more comes, and leaves the other direction open.
func (c *conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.writable(); err != nil {
		return err
	}
	c.mu.Lock()
	c.halfClosed = true
	c.mu.Unlock()
	return c.pass(frame{fin: true})
}
