package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
)

// Listener is a listening socket with the name that the configuration gives it.
type Listener struct {
	Name string
	Net  *net.TCPListener
}

// Open listens at an address: at one of IPv4 for IPv4 alone, at [::] for both families. Package net would take IPv6 at
// 0.0.0.0 too, and then 0.0.0.0 and [::1] could not be listened at together.
func Open(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp"
	if addr.Addr().Unmap().Is4() {
		network = "tcp4"
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go's default: such sockets have no TCP_USER_TIMEOUT, TCP_INFO or splice(2)
	l, err := config.Listen(ctx, network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l.(*net.TCPListener), nil
}

// Dup returns another descriptor of the same socket. The kernel takes connections for as long as there is one, in
// whatever process.
func Dup(l *net.TCPListener) (*net.TCPListener, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("copy a listener: %w", err)
	}
	var fd uintptr
	var errno syscall.Errno
	err = raw.Control(func(from uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, from, syscall.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return nil, fmt.Errorf("copy a listener: %w", err)
	}
	return adopt(os.NewFile(fd, "listener"))
}

// adopt makes a listener of a file, which it closes. A file of l.File would not do: net.FileListener makes its socket
// blocking for a moment, and with it that of everyone who shares it; a relay that calls accept then is stuck.
func adopt(f *os.File) (*net.TCPListener, error) {
	defer func() { _ = f.Close() }()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("make a listener of a descriptor: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok || !listens(tcp) {
		return nil, errors.Join(fmt.Errorf("make a listener of a descriptor: %s is not a listening TCP socket", f.Name()), l.Close())
	}
	return tcp, nil
}

// listens says whether a socket listens; package net takes any for a listener.
func listens(l *net.TCPListener) bool {
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	value := 0
	_ = raw.Control(func(fd uintptr) {
		value, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	})
	return err == nil && value == 1
}

// Claim takes the listener for a configured one out of those that were given: the one that listens at the address, or
// else, with byName, the one of the name, wherever it listens. It returns nil if there is none, and the others. A given
// list is not changed.
func Claim(given []Listener, name string, addr netip.AddrPort, byName bool) (*net.TCPListener, []Listener) {
	i := slices.IndexFunc(given, func(l Listener) bool { return at(l.Net) == addr })
	if i < 0 && byName {
		i = slices.IndexFunc(given, func(l Listener) bool { return l.Name == name })
	}
	if i < 0 {
		return nil, given
	}
	return given[i].Net, slices.Delete(slices.Clone(given), i, i+1)
}

// at is where a listener listens.
func at(l *net.TCPListener) netip.AddrPort {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
}
