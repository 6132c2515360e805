package tcp

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What an Event of a connection may say.
const (
	Readable = unix.EPOLLIN
	Writable = unix.EPOLLOUT
	PeerDone = unix.EPOLLRDHUP // the peer has sent its FIN, perhaps after bytes that are still to be read
	HungUp   = unix.EPOLLHUP   // both directions have ended, or the connection never came to be
	Broken   = unix.EPOLLERR   // there is an error to be read
)

// Event is what the kernel tells of one descriptor.
type Event struct{ raw unix.EpollEvent }

// Tag is what was given to the Poller with the descriptor.
func (e *Event) Tag() uint64 { return uint64(uint32(e.raw.Pad))<<32 | uint64(uint32(e.raw.Fd)) }

// What is a set of Readable, Writable, PeerDone, HungUp and Broken.
func (e *Event) What() uint32 { return e.raw.Events }

// Poller waits for many descriptors (epoll(7)). Only Wait of one goroutine at a time; the rest is safe for concurrent use.
// A descriptor leaves it when its last duplicate is closed.
type Poller struct{ fd int }

// OpenPoller opens one.
func OpenPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open an epoll set: %w", err)
	}
	return &Poller{fd}, nil
}

// Close closes it.
func (p *Poller) Close() error { return unix.Close(p.fd) }

// AddConn has all news of a connection told once (edge-triggered), in both directions. What the descriptor is ready for
// already is news.
func (p *Poller) AddConn(fd int, tag uint64) error {
	return p.add(fd, tag, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET)
}

// AddListener has a listener told as long as a connection waits there, to one of the sets that it is in (Linux 4.5).
func (p *Poller) AddListener(fd int, tag uint64) error {
	return p.add(fd, tag, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
}

// AddWaker has a Waker told as long as it is awake.
func (p *Poller) AddWaker(w *Waker, tag uint64) error { return p.add(w.fd, tag, unix.EPOLLIN) }

func (p *Poller) add(fd int, tag uint64, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(uint32(tag)), Pad: int32(uint32(tag >> 32))}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&e)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("add a descriptor to an epoll set: %w", errno)
	}
	return nil
}

// Remove takes out a descriptor that stays open. One that is not there is no error.
func (p *Poller) Remove(fd int) error {
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove a descriptor from an epoll set: %w", err)
	}
	return nil
}

// Briefly waits for the first event and returns how many there are, at most len(events), which must not be 0. It waits
// for so long, rounded up to milliseconds, and without telling Go's scheduler: whoever wants to stop this goroutine, as the
// collector does, sends its thread a signal, which ends the wait early and without events.
func (p *Poller) Briefly(events []Event, most time.Duration) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(milliseconds(most)), 0, 0)
	return waited(n, errno)
}

// Wait is the same for any time, less than 0: forever. Others may run meanwhile.
func (p *Poller) Wait(events []Event, most time.Duration) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(milliseconds(most)), 0, 0)
	return waited(n, errno)
}

func milliseconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Millisecond - 1) / time.Millisecond)
}

func waited(n uintptr, errno unix.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("wait for an epoll set: %w", errno)
}

// Waker wakes who waits for a Poller (eventfd(2)).
type Waker struct{ fd int }

// OpenWaker opens one.
func OpenWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open an eventfd: %w", err)
	}
	return &Waker{fd}, nil
}

// Wake makes it readable. It may be called by anyone, again and again.
func (w *Waker) Wake() error {
	one := [8]byte{1}
	if _, err := unix.Write(w.fd, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("wake an event loop: %w", err)
	}
	return nil
}

// Clear makes it sleep again.
func (w *Waker) Clear() error {
	var b [8]byte
	if _, err := unix.Read(w.fd, b[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("read an eventfd: %w", err)
	}
	return nil
}

// Close closes it.
func (w *Waker) Close() error { return unix.Close(w.fd) }
