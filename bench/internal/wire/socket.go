package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// silence is when a peer that says nothing is given up.
const silence = 10 * time.Second

// blocking are sockets that wait, but no longer than silence.
func blocking(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(int64(silence))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	if err == nil {
		err = connect(fd, to)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("connect to %s: %w", to, err), unix.Close(fd))
	}
	return fd, nil
}

// connect tries again when a signal has interrupted it; the runtime sends some.
func connect(fd int, to netip.AddrPort) error {
	for {
		err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
		// The attempt goes on, and the next call waits for its end.
	}
}

// write writes a whole message, which is small: a connection that does not take it at once is of no use.
func write(fd int, b []byte) error {
	n, err := unix.Write(fd, b)
	switch {
	case err != nil:
		return fmt.Errorf("send: %w", err)
	case n < len(b):
		return errors.New("send: the connection takes no more")
	}
	return nil
}

// errWait is for a socket that has nothing to read now.
var errWait = errors.New("nothing to read")

// errEnd is for a connection that the peer has ended.
var errEnd = errors.New("the connection was closed")

// read returns errWait or errEnd instead of no bytes.
func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, errWait
		case err != nil:
			return 0, fmt.Errorf("receive: %w", err)
		case n == 0:
			return 0, errEnd
		}
		return n, nil
	}
}

// readAnswer reads a whole answer from a socket that waits.
func readAnswer(fd int) error {
	var b [answerBytes]byte
	for have := 0; have < len(b); {
		n, err := read(fd, b[have:])
		if err != nil {
			return err
		}
		have += n
	}
	return nil
}

// poll is an epoll set that tells of the end of patience.
type poll struct {
	fd     int
	events []unix.EpollEvent
	last   time.Time
}

func newPoll(most int) (*poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make poll: %w", err)
	}
	return &poll{fd: fd, events: make([]unix.EpollEvent, most), last: time.Now()}, nil
}

func (p *poll) add(fd int, number int32, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: number})
}

// pollMillis is how often it is looked at whether a run is over when nothing happens.
const pollMillis = 100

// wait returns at the latest after pollMillis, then without events.
func (p *poll) wait() ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(p.fd, p.events, pollMillis)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("poll: %w", err)
	case n > 0:
		p.last = time.Now()
	}
	return p.events[:max(n, 0)], nil
}

// silent is an error if nothing has happened for long.
func (p *poll) silent() error {
	if time.Since(p.last) > silence {
		return fmt.Errorf("nothing has come for %s", silence)
	}
	return nil
}

func (p *poll) close() error { return unix.Close(p.fd) }
