package tcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrWouldBlock says that a descriptor has no bytes, no room or no connection now.
var ErrWouldBlock = errors.New("the descriptor is not ready")

// Take takes over a listener: it returns a descriptor of its own, which does not block, and closes l. Go's runtime does
// not know the descriptor, and is not woken for its connections.
func Take(l *net.TCPListener) (int, error) {
	defer l.Close()
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("take over a listener: %w", err)
	}
	fd, dupErr := -1, error(nil)
	if err = raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err == nil {
		err = dupErr
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return -1, fmt.Errorf("take over a listener: %w", err)
	}
	return fd, nil
}

// Accept returns a connection that waits at a listener, and its peer; ErrWouldBlock: there is none.
func Accept(listener int) (int, netip.AddrPort, error) {
	for {
		var sa unix.RawSockaddrInet6 // the larger of the two
		size := uint32(unsafe.Sizeof(sa))
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&sa)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int(fd), fromRaw(&sa), nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EAGAIN:
			return -1, netip.AddrPort{}, ErrWouldBlock
		}
		return -1, netip.AddrPort{}, fmt.Errorf("accept a connection: %w", errno)
	}
}

// Connect begins to connect. When the socket is Writable and not Broken it is connected; until then, Failure may tell why
// not. TCP_NODELAY is set.
func Connect(to netip.AddrPort) (int, error) {
	sa, size, family := toRaw(to)
	s, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, fmt.Errorf("open a socket: %w", errno)
	}
	fd := int(s)
	if err := SetNoDelay(fd); err != nil {
		Close(fd)
		return -1, err
	}
	_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, s, uintptr(unsafe.Pointer(&sa)), uintptr(size))
	if errno != 0 && errno != unix.EINPROGRESS {
		Close(fd)
		return -1, fmt.Errorf("connect: %w", errno)
	}
	return fd, nil
}

// Failure returns and clears the error of a socket (SO_ERROR); nil: there is none.
func Failure(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("read SO_ERROR: %w", err)
	}
	if code != 0 {
		return unix.Errno(code)
	}
	return nil
}

// Read reads what is there into b, which must not be empty. 0 bytes without an error: the peer will send no more.
func Read(fd int, b []byte) (int, error) { return receive(fd, b, unix.MSG_DONTWAIT) }

// Peek is Read that leaves the bytes where they are.
func Peek(fd int, b []byte) (int, error) { return receive(fd, b, unix.MSG_DONTWAIT|unix.MSG_PEEK) }

func receive(fd int, b []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, ErrWouldBlock
		}
		return 0, fmt.Errorf("read: %w", errno)
	}
}

// Write writes what there is room for, of b that must not be empty.
func Write(fd int, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, ErrWouldBlock
		}
		return 0, fmt.Errorf("write: %w", errno)
	}
}

// ShutdownWrite says to the peer that no more bytes will come (FIN).
func ShutdownWrite(fd int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0); errno != 0 {
		return fmt.Errorf("end a direction: %w", errno)
	}
	return nil
}

// Close closes a socket in order. Bytes that it still has are sent by the kernel, unless some were not read.
func Close(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// Reset closes a connection so that the peer sees an error (RST), and drops what was not sent.
func Reset(fd int) {
	linger := unix.Linger{Onoff: 1}
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&linger)),
		unsafe.Sizeof(linger), 0)
	Close(fd)
}
