package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a Getter.
const (
	// responseLimit is more than a small answer has, with all its headers.
	responseLimit = 16 << 10
	// silence is when a server that answers nothing is given up.
	silence = 10 * time.Second
	// pollMillis is how often the end of a run is looked at when nothing is answered.
	pollMillis = 100
)

// Request is what a Getter sends.
type Request struct {
	To   netip.AddrPort
	Path string
	// TLS has the server's name or address and what the client trusts and shows; nil means without TLS.
	TLS *tls.Config
	// Token of the client, empty for none.
	Token string
	// Failures says that answers other than 200 are counted. They are the end of a run otherwise.
	Failures bool
}

func (r Request) bytes() []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\nUser-Agent: varco-bench\r\n", r.Path, r.To)
	if r.Token != "" {
		b = fmt.Appendf(b, "Authorization: Bearer %s\r\n", r.Token)
	}
	return append(b, "\r\n"...)
}

// Getter sends the same small request on each of its connections again and again. It works by system calls on one thread:
// a goroutine for each connection would take twice the processor time, from the same machine that the proxy runs on.
type Getter struct {
	poll     int
	request  []byte
	failures bool
	conns    []*getConn
}

type getConn struct {
	fd   int
	way  io.ReadWriter // the socket, or TLS on it
	sent time.Time     // or when it was due; zero if nothing is under way
	have int
	buf  [responseLimit]byte
}

// Gets is what came of a run.
type Gets struct {
	Took time.Duration
	// Latencies of the answers that were 200.
	Latencies []time.Duration
	// Failed counts the others, Failure is the first of them.
	Failed  int
	Failure string
}

// NewGetter connects, and sends nothing yet. Close ends it.
func NewGetter(r Request, connections int) (*Getter, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make poll: %w", err)
	}
	g := &Getter{poll: poll, request: r.bytes(), failures: r.Failures}
	for i := range connections {
		if err := g.connect(r, i); err != nil {
			return nil, errors.Join(fmt.Errorf("connect to %s: %w", r.To, err), g.Close())
		}
	}
	return g, nil
}

func (g *Getter) connect(r Request, number int) error {
	s, err := open(r.To)
	if err != nil {
		return err
	}
	c := &getConn{fd: s.fd, way: s}
	g.conns = append(g.conns, c)
	if r.TLS != nil {
		over := tls.Client(s, r.TLS)
		if err := over.Handshake(); err != nil {
			return err
		}
		c.way = over
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return err
	}
	return unix.EpollCtl(g.poll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)})
}

// Close closes all connections.
func (g *Getter) Close() error {
	err := unix.Close(g.poll)
	for _, c := range g.conns {
		err = errors.Join(err, unix.Close(c.fd))
	}
	return err
}

// Run sends requests for so long; a run after it goes on where it ended, with one request under way on each connection.
func (g *Getter) Run(ctx context.Context, duration time.Duration) (out Gets, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now()
	for _, c := range g.conns {
		if c.sent.IsZero() {
			if err := c.send(g.request, time.Now()); err != nil {
				return out, err
			}
		}
	}
	w := waiter{poll: g.poll, events: make([]unix.EpollEvent, len(g.conns)), last: began}
	for time.Since(began) < duration {
		events, err := w.wait(ctx)
		if err != nil {
			return out, err
		}
		for _, e := range events {
			c := g.conns[e.Fd]
			whole, err := g.receive(c, &out)
			if err != nil {
				return out, err
			}
			if !whole {
				continue
			}
			if err := c.send(g.request, time.Now()); err != nil {
				return out, err
			}
		}
	}
	out.Took = time.Since(began)
	return out, nil
}

// waiter waits for answers, but not for ever.
type waiter struct {
	poll   int
	events []unix.EpollEvent
	last   time.Time
}

// wait returns at the latest after pollMillis, then without events.
func (w *waiter) wait(ctx context.Context) ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(w.poll, w.events, pollMillis)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("wait for answers: %w", err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case n > 0:
		w.last = time.Now()
	case time.Since(w.last) > silence:
		return nil, fmt.Errorf("no answer for %s", silence)
	}
	return w.events[:n], nil
}

// receive reads what is there, and counts the answer if that was the rest of it.
func (g *Getter) receive(c *getConn, out *Gets) (whole bool, err error) {
	for {
		n, err := c.way.Read(c.buf[c.have:])
		switch {
		case errors.Is(err, errWait):
			return false, nil
		case errors.Is(err, io.EOF):
			return false, fmt.Errorf("read answer: the connection was closed after %d bytes: %.300q", c.have, c.buf[:c.have])
		case err != nil:
			return false, fmt.Errorf("read answer: %w", err)
		}
		c.have += n
		length, ok, err := complete(c.buf[:c.have])
		switch {
		case err != nil:
			return false, err
		case length == 0 && c.have == len(c.buf):
			return false, fmt.Errorf("%w: more than %d bytes", errOdd, len(c.buf))
		case length == 0:
			continue
		case length != c.have:
			return false, fmt.Errorf("%w: %d bytes behind it", errOdd, c.have-length)
		}
		return true, g.count(c, ok, out)
	}
}

func (g *Getter) count(c *getConn, ok bool, out *Gets) error {
	switch {
	case ok:
		out.Latencies = append(out.Latencies, time.Since(c.sent))
	case !g.failures:
		return fmt.Errorf("%w: %.600q", errOdd, c.buf[:c.have])
	default:
		if out.Failed++; out.Failed == 1 {
			out.Failure = fmt.Sprintf("%.600q", c.buf[:c.have])
		}
	}
	return nil
}

// send sends the request; its time counts from then.
func (c *getConn) send(request []byte, then time.Time) error {
	c.have, c.sent = 0, then
	if _, err := c.way.Write(request); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}
