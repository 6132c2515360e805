package load

import (
	"context"
	"errors"
	"fmt"
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

// Getter sends the same small request on each of its connections again and again. It works by system calls on one thread:
// a goroutine for each connection would take twice the processor time, from the same machine that the proxy runs on.
type Getter struct {
	poll    int
	request []byte
	conns   []*getConn
}

type getConn struct {
	fd   int
	sent time.Time
	have int
	buf  [responseLimit]byte
}

// Gets is what came of a run.
type Gets struct {
	Took      time.Duration
	Latencies []time.Duration
}

// NewGetter connects, and sends nothing yet. Close ends it.
func NewGetter(to netip.AddrPort, path string, connections int) (*Getter, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make poll: %w", err)
	}
	g := &Getter{poll: poll}
	g.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\nUser-Agent: varco-bench\r\n\r\n", path, to)
	for i := range connections {
		if err := g.connect(to, i); err != nil {
			return nil, errors.Join(fmt.Errorf("connect to %s: %w", to, err), g.Close())
		}
	}
	return g, nil
}

func (g *Getter) connect(to netip.AddrPort, number int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	g.conns = append(g.conns, &getConn{fd: fd})
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	return unix.EpollCtl(g.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)})
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
			if err := c.send(g.request); err != nil {
				return out, err
			}
		}
	}
	last := began
	events := make([]unix.EpollEvent, len(g.conns))
	for time.Since(began) < duration {
		n, err := unix.EpollWait(g.poll, events, pollMillis)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return out, fmt.Errorf("wait for answers: %w", err)
		case ctx.Err() != nil:
			return out, context.Cause(ctx)
		case n > 0:
			last = time.Now()
		case time.Since(last) > silence:
			return out, fmt.Errorf("no answer for %s", silence)
		}
		for _, e := range events[:n] {
			if err := g.conns[e.Fd].receive(g.request, &out); err != nil {
				return out, err
			}
		}
	}
	out.Took = time.Since(began)
	return out, nil
}

// receive reads what is there, and sends the next request if the answer is complete.
func (c *getConn) receive(request []byte, out *Gets) error {
	n, err := unix.Read(c.fd, c.buf[c.have:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case n == 0:
		return fmt.Errorf("read answer: the connection was closed after %d bytes: %.300q", c.have, c.buf[:c.have])
	}
	c.have += n
	length, err := complete(c.buf[:c.have])
	switch {
	case err != nil:
		return err
	case length == 0 && c.have == len(c.buf):
		return fmt.Errorf("%w: more than %d bytes", errOdd, len(c.buf))
	case length == 0:
		return nil
	case length != c.have:
		return fmt.Errorf("%w: %d bytes behind it", errOdd, c.have-length)
	}
	out.Latencies = append(out.Latencies, time.Since(c.sent))
	return c.send(request)
}

func (c *getConn) send(request []byte) error {
	c.have, c.sent = 0, time.Now()
	n, err := unix.Write(c.fd, request)
	if err == nil && n < len(request) {
		err = errors.New("the connection takes no more")
	}
	if err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}
