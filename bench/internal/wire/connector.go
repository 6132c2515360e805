package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Connector connects, sends a small request, reads the answer and closes, again and again on each of its lanes. A lane has an
// address of its own to connect from, because each address has only so many ports, and those of closed connections rest for
// a while.
type Connector struct {
	To netip.AddrPort
	// From are the addresses of the lanes; the zero value leaves the choice to the kernel.
	From []netip.Addr
}

type lane struct {
	from   netip.Addr
	fd     int
	began  time.Time
	linked bool // the request was sent
	have   int
}

// connecting is one run of a Connector.
type connecting struct {
	*Connector
	poll   *poll
	lanes  []lane
	ping   []byte
	answer []byte
	out    Exchanges
}

// Run makes connections for so long. A latency is from the first packet to the whole answer.
func (c *Connector) Run(ctx context.Context, duration time.Duration) (out Exchanges, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := connecting{Connector: c, ping: request(askPing, 0), answer: make([]byte, answerBytes)}
	if r.poll, err = newPoll(len(c.From)); err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	began := time.Now()
	for i, from := range c.From {
		r.lanes = append(r.lanes, lane{from: from, fd: -1})
		if err := r.open(i); err != nil {
			return out, err
		}
	}
	for time.Since(began) < duration {
		events, err := r.poll.wait()
		if err := errors.Join(err, context.Cause(ctx), r.poll.silent()); err != nil {
			return out, err
		}
		for _, e := range events {
			if err := r.turn(int(e.Fd)); err != nil {
				return out, err
			}
		}
	}
	r.out.Took = time.Since(began)
	return r.out, nil
}

func (r *connecting) close() error {
	err := r.poll.close()
	for _, l := range r.lanes {
		if l.fd >= 0 {
			err = errors.Join(err, unix.Close(l.fd))
		}
	}
	return err
}

// open begins a connection on a lane. On one machine it is often whole before the call returns.
func (r *connecting) open(number int) error {
	l := &r.lanes[number]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	*l = lane{from: l.from, fd: fd, began: time.Now()}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if l.from.IsValid() {
		// Without it bind would take a port that no other connection has, whatever its destination.
		err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: l.from.As4()}))
		if err != nil {
			return fmt.Errorf("connect from %s: %w", l.from, err)
		}
	}
	switch err := connect(fd, r.To); {
	case err == nil:
		l.linked = true
		return errors.Join(write(fd, r.ping), r.poll.add(fd, int32(number), unix.EPOLLIN))
	case errors.Is(err, unix.EINPROGRESS):
		return r.poll.add(fd, int32(number), unix.EPOLLOUT)
	default:
		return fmt.Errorf("connect to %s: %w", r.To, err)
	}
}

func (r *connecting) turn(number int) error {
	l := &r.lanes[number]
	if !l.linked {
		return r.link(number)
	}
	n, err := read(l.fd, r.answer)
	if errors.Is(err, errWait) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.have += n; l.have < answerBytes {
		return nil
	}
	r.out.Latencies = append(r.out.Latencies, time.Since(l.began))
	if err := unix.Close(l.fd); err != nil { // which takes it out of the poll too
		return err
	}
	l.fd = -1
	return r.open(number)
}

// link sends the request when the connection stands.
func (r *connecting) link(number int) error {
	l := &r.lanes[number]
	code, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", r.To, err)
	}
	l.linked = true
	return errors.Join(write(l.fd, r.ping),
		unix.EpollCtl(r.poll.fd, unix.EPOLL_CTL_MOD, l.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)}))
}
