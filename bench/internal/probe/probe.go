package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"varco.dev/internal/nettest"
)

// ErrNoAnswer is what Connect returns when nobody answers in time.
var ErrNoAnswer = errors.New("no answer in time")

// Prober opens connections from one namespace. It is for the one goroutine that Run runs.
type Prober struct {
	// Timeout bounds the handshake and the answer, each.
	Timeout time.Duration
}

// DefaultTimeout is far above what a connection takes between namespaces of one machine, some 0.1 ms, and below the
// second after which the kernel repeats a lost packet.
const DefaultTimeout = 200 * time.Millisecond

// Run runs fn on a thread of its own in the namespace.
func Run(ns *nettest.Namespace, fn func(*Prober) error) error {
	return ns.Do(func() error {
		// Without this, Sleep would be late by 50 µs, the default slack of timers.
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set timer slack: %w", err)
		}
		return fn(&Prober{Timeout: DefaultTimeout})
	})
}

// Answer is what a server says of itself: its name, and the address at which it was reached.
type Answer struct {
	Name byte
	Addr netip.Addr
}

// Encode returns the answer as servers send it, five bytes.
func (a Answer) Encode() []byte {
	b := a.Addr.As4()
	return append([]byte{a.Name}, b[:]...)
}

// answerLength is the length of an encoded answer.
const answerLength = 5

// Connect opens a connection to dst, reads what the server says of itself, and closes with a reset, so that no state is
// left to wait for. An address src other than the zero value is the client's address. An error is ErrNoAnswer or the
// kernel's.
func (p *Prober) Connect(dst netip.AddrPort, src netip.Addr) (a Answer, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return a, err
	}
	defer unix.Close(fd)
	if err := p.prepare(fd, src); err != nil {
		return a, err
	}
	if err := again(func() error {
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: dst.Addr().As4(), Port: int(dst.Port())})
	}); err != nil {
		return a, timeout(err)
	}
	var buf [answerLength]byte
	var n int
	err = again(func() (err error) { n, err = unix.Read(fd, buf[:]); return err })
	if err != nil || n < answerLength {
		return a, timeout(err)
	}
	return Answer{Name: buf[0], Addr: netip.AddrFrom4([4]byte(buf[1:]))}, nil
}

func (p *Prober) prepare(fd int, src netip.Addr) error {
	limit := unix.NsecToTimeval(int64(p.Timeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if !src.IsValid() {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: src.As4()})
}

// again repeats a system call that a signal interrupted; the runtime sends signals to preempt goroutines.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// timeout translates how the kernel says that a socket's time is over. Connect says EALREADY where a signal came between.
func timeout(err error) error {
	if err == nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EALREADY) {
		return ErrNoAnswer
	}
	return err
}

// Sleep waits more exactly than time.Sleep, which may be late by a millisecond: the runtime's poller counts in those.
func Sleep(d time.Duration) {
	left := unix.NsecToTimespec(int64(max(d, 0)))
	_ = again(func() error { return unix.Nanosleep(&left, &left) }) // fails by interruption alone, which again goes on after
}
