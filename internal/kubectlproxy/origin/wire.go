package origin

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// frameBytes is the largest SPDY data frame that is sent, and what kubelets send.
const frameBytes = 32 << 10

// frameHeader is the size of a SPDY frame's header: four bytes of stream or type, one of flags, three of length
// (SPDY/3.1, section 2.2).
const frameHeader = 8

// wire is the connection below a SPDY session. It remembers when bytes last moved, and it sends each frame as a whole:
// spdystream writes a header in three pieces, which would be three messages in a WebSocket and three packets.
type wire struct {
	conn  io.ReadWriteCloser
	frame []byte // what the session, which holds a lock while it writes, has written of the current frame
	moved atomic.Int64
	since atomic.Int64 // when the frame that is being sent was begun; 0: none is
	close sync.Once
}

func newWire(conn io.ReadWriteCloser) *wire {
	w := &wire{conn: conn}
	w.touch()
	return w
}

func (w *wire) touch()               { w.moved.Store(time.Now().UnixNano()) }
func (w *wire) quiet() time.Duration { return time.Duration(time.Now().UnixNano() - w.moved.Load()) }

// sending is how long the frame that is being sent has waited for the other side to take it.
func (w *wire) sending() time.Duration {
	since := w.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - since)
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.conn.Read(p)
	if n > 0 {
		w.touch()
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.frame = append(w.frame, p...)
	if len(w.frame) < frameHeader || len(w.frame) < frameHeader+w.payload() {
		return len(p), nil
	}
	w.since.Store(time.Now().UnixNano())
	_, err := w.conn.Write(w.frame)
	w.since.Store(0)
	w.touch()
	w.frame = w.frame[:0]
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *wire) payload() int { return int(binary.BigEndian.Uint32(w.frame[4:]) & 0xffffff) }

// Close may be called again, and has no error: spdystream waits a second for somebody who wants to hear of one.
func (w *wire) Close() error {
	w.close.Do(func() { _ = w.conn.Close() })
	return nil
}

// A tunnel has no address of its own, and its deadlines are those of its streams.

func (w *wire) LocalAddr() net.Addr              { return tunnelAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return tunnelAddr{} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// tunnelAddr is the address of both ends of a connection through a tunnel.
type tunnelAddr struct{}

// tunnelNet is the name of the network of both, and in errors.
const tunnelNet = "tunnel"

func (tunnelAddr) Network() string { return tunnelNet }
func (tunnelAddr) String() string  { return tunnelNet }
