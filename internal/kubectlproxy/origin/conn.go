package origin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/moby/spdystream"
)

// Bounds of one connection.
const (
	// MaxBuffered is how many bytes of an answer are kept for a client that does not read. It is the room in which
	// the other connections of the tunnel are not disturbed.
	MaxBuffered = 4 << 20
	// behind is how many bytes make a client one that does not read as fast as the app sends. New requests take another
	// tunnel from then on, while there still is room for the answers to those that are under way in this one.
	behind = MaxBuffered / 8
	// StallTimeout is how long such a client may hold up the other connections of its tunnel once that room is full.
	StallTimeout = 10 * time.Second
	// verdictTimeout is the wait for the reason after the end of a connection: both travel at the same time.
	verdictTimeout = 2 * time.Second
	// maxVerdict bounds the text of that reason.
	maxVerdict = 4 << 10
)

// errSlowClient ends an answer that was in the way of others.
var errSlowClient = errors.New("the client stopped reading, and other requests waited behind it")

// ForwardError is what the kubelet says when it cannot reach a port of a pod, such as that nobody listens there. The
// app has seen nothing of the connection's first request then.
type ForwardError struct{ Message string }

// Error implements error.
func (e *ForwardError) Error() string { return e.Message }

// refused says whether nobody has heard anything of the connection.
func (e *ForwardError) refused() bool {
	return strings.Contains(e.Message, "connection refused") || strings.Contains(e.Message, "failed to dial")
}

// conn is a TCP connection to a port of a pod: a data stream, and a stream for what went wrong. It is a net.Conn with
// deadlines for reads; a write waits as long as the connection and the tunnel live.
type conn struct {
	tunnel         *tunnel
	port           string
	data, failures *spdystream.Stream

	said     chan string   // what the stream of failures had to say
	readable chan struct{} // one token when frames or end have changed
	room     chan struct{} // one token when the reader has made room
	closed   chan struct{}
	closing  sync.Once
	deadline deadline
	sender

	mu         sync.Mutex
	frames     [][]byte
	size       int
	end        error // after the frames; nil while the stream lives
	isBehind   bool
	halfClosed bool
}

func newConn(t *tunnel, port string, data, failures *spdystream.Stream) *conn {
	return &conn{
		tunnel: t, port: port, data: data, failures: failures,
		said: make(chan string, 1), readable: make(chan struct{}, 1), room: make(chan struct{}, 1), closed: make(chan struct{}),
		sender: newSender(),
	}
}

// pump moves frames from the session, which stands still while nobody takes them, into the connection's own buffer.
func (c *conn) pump() {
	for {
		frame, err := c.data.ReadData()
		if err != nil {
			c.finish(c.verdict())
			return
		}
		size := c.keep(frame)
		c.watch(size)
		if size > MaxBuffered && !c.waitForRoom() {
			_ = c.data.Reset() // or else the session waits for somebody to take what follows, even when it ends
			return
		}
	}
}

func (c *conn) keep(frame []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, frame)
	c.size += len(frame)
	token(c.readable)
	return c.size
}

// watch tells the tunnel when the client falls behind, and when it has caught up. A closed connection is never behind, though
// frames still come: nobody would ever catch up.
func (c *conn) watch(size int) {
	c.mu.Lock()
	was := c.isBehind
	c.isBehind = !isClosed(c.closed) && (size > behind || was && size > behind/2)
	now := c.isBehind
	c.mu.Unlock()
	switch {
	case now && !was:
		c.tunnel.stall(1)
	case was && !now:
		c.tunnel.stall(-1)
	}
}

func (c *conn) finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = err
	token(c.readable)
}

// token puts one token in, if there is none.
func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// waitForRoom returns false if the connection has ended instead.
func (c *conn) waitForRoom() bool {
	c.tunnel.blocked.Add(1)
	defer c.tunnel.blocked.Add(-1)
	for {
		timer := time.NewTimer(StallTimeout)
		select {
		case <-c.room:
			timer.Stop()
			return true
		case <-c.closed:
		case <-c.tunnel.lost:
			c.finish(errTunnelLost)
		case <-timer.C:
			if !c.tunnel.wanted() {
				continue
			}
			c.finish(errSlowClient)
		}
		timer.Stop()
		return false
	}
}

// listen reads the stream of failures from the start: a frame that nobody takes would stand in the way of all others.
func (c *conn) listen() {
	text, _ := io.ReadAll(io.LimitReader(c.failures, maxVerdict))
	c.said <- string(text)
	_, _ = io.Copy(io.Discard, c.failures)
}

// verdict says why the stream has ended. A stream looks the same after the end of the app's connection, a failure and
// the loss of the tunnel; the second stream and the session tell. Anything but a clean end must not look like one: an
// answer without a length would seem complete.
func (c *conn) verdict() error {
	timer := time.NewTimer(verdictTimeout)
	defer timer.Stop()
	select {
	case text := <-c.said:
		if text != "" {
			return &ForwardError{fmt.Sprintf("port %s of the pod: %s", c.port, lastCause(text))}
		}
	case <-timer.C:
	case <-c.closed:
	}
	if !c.tunnel.alive() || c.wasReset() {
		return errTunnelLost
	}
	return io.EOF
}

// wasReset says whether the kubelet has reset the stream, as it does with all of them at the end of a session, and not
// ended it. spdystream marks a reset stream as one that is finished in both directions; ours may be by ourselves.
func (c *conn) wasReset() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.halfClosed && c.data.IsFinished()
}

// lastCause shortens the kubelet's sentence, "error forwarding port 80 to pod <sandbox>, uid : failed to ...".
func lastCause(text string) string {
	if _, cause, ok := strings.Cut(text, "uid : "); ok {
		return cause
	}
	return text
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	for {
		if n, err := c.take(p); n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		select {
		case <-c.readable:
		case <-c.closed:
			return 0, net.ErrClosed
		case <-c.deadline.wait():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (c *conn) take(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case <-c.deadline.wait():
		return 0, os.ErrDeadlineExceeded
	default:
	}
	n, left, err := c.move(p)
	if n > 0 {
		c.watch(left)
	}
	return n, err
}

// move copies what there is, and says how much is left. The error is that of the end, if nothing was there.
func (c *conn) move(p []byte) (n, left int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(p) && len(c.frames) > 0 {
		moved := copy(p[n:], c.frames[0])
		n += moved
		if c.frames[0] = c.frames[0][moved:]; len(c.frames[0]) == 0 {
			c.frames[0] = nil
			c.frames = c.frames[1:]
		}
	}
	if c.size -= n; n > 0 && c.size <= MaxBuffered/2 {
		token(c.room)
	}
	if n == 0 && len(c.frames) == 0 {
		err = c.end
	}
	return n, c.size, err
}

// Close implements net.Conn. It returns at once: the frames that say so may wait behind others in the tunnel.
func (c *conn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.deadline.set(time.Time{})
		c.watch(0)
		c.tunnel.drop(c)
		c.tunnel.start(c.hangUp)
	})
	return nil
}

// hangUp resets both streams. After a half close spdystream thinks that there is nothing left to say, and would leave
// the app to write into the void, so that is said in spite of it.
func (c *conn) hangUp() {
	_ = c.data.Reset()
	c.mu.Lock()
	halfClosed := c.halfClosed
	c.mu.Unlock()
	if halfClosed {
		_ = c.data.Cancel()
	}
	_ = c.failures.Reset()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return tunnelAddr{} }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return portAddr(c.port) }

// SetDeadline implements net.Conn; only reads heed it.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { c.deadline.set(t); return nil }

// SetWriteDeadline implements net.Conn and does nothing: a frame once begun has to be finished, for it is not alone in
// its tunnel.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
