// Package peer tells which user of this computer is at the other end of a connection.
package peer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
)

var (
	// ErrRemote says that the other end may be on another computer, which has users of its own.
	ErrRemote = errors.New("the other end is not on a loopback address")
	// ErrGone says that no process has the other end any more: it was closed, or its process ended.
	ErrGone = errors.New("nobody holds the other end of the connection any more")
)

// Tells says whether this system tells the users of connections of a network, "unix" or "tcp", at all.
func Tells(network string) bool {
	return runtime.GOOS == "linux" || runtime.GOOS == "darwin" && network == "unix"
}

// User returns the user of the other end of a connection that was accepted: who connected a unix socket, or who made the
// socket at the other end of a TCP connection over loopback. Connections in others, such as those of TLS, are found
// through their method NetConn() net.Conn. It takes some 40 µs and is best asked right after accept, while the client
// still waits: afterwards it may be gone.
//
// Errors wrap ErrRemote, ErrGone, or errors.ErrUnsupported where this system does not tell; whoever guards something with
// User must take each for a stranger. The other end of TCP must be in the network namespace of this process. Users whom
// the user namespace of this process does not know are all 65534.
func User(conn net.Conn) (uid uint32, err error) {
	switch remote := conn.RemoteAddr().(type) {
	case *net.UnixAddr:
		return unixUser(innermost(conn))
	case *net.TCPAddr:
		local, ok := conn.LocalAddr().(*net.TCPAddr)
		if !ok {
			return 0, fmt.Errorf("finding the user of %v: local address %v is not TCP's", remote, conn.LocalAddr())
		}
		return tcpUser(plain(local.AddrPort()), plain(remote.AddrPort()))
	}
	return 0, fmt.Errorf("finding the user of a connection from %v: %w", conn.RemoteAddr(), errors.ErrUnsupported)
}

func tcpUser(ours, theirs netip.AddrPort) (uint32, error) {
	if !theirs.Addr().IsLoopback() {
		return 0, fmt.Errorf("finding the user of %v: %w", theirs, ErrRemote)
	}
	uid, err := socketUser(theirs, ours)
	if err != nil {
		return 0, fmt.Errorf("finding the user of %v: %w", theirs, err)
	}
	return uid, nil
}

func unixUser(conn net.Conn) (uint32, error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("finding the user of a unix socket: %T holds no connection that can be asked", conn)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("finding the user of a unix socket: %w", err)
	}
	var uid uint32
	var asked error
	err = raw.Control(func(fd uintptr) { uid, asked = credentials(int(fd)) })
	if err := errors.Join(err, asked); err != nil {
		return 0, fmt.Errorf("finding the user of a unix socket: %w", err)
	}
	return uid, nil
}

// innermost returns the connection that others are wrapped around.
func innermost(conn net.Conn) net.Conn {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = outer.NetConn()
	}
}

// plain writes an IPv4 address as such where a socket of both families has it as IPv6.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
