//go:build linux

package loop_test

import (
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// blackHole is an address that drops SYNs: a listener that takes nobody in, and whose queue is full.
func blackHole(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	dial(t, at) // a backlog of 0 is one connection
	if c, err := net.DialTimeout("tcp", at.String(), 50*time.Millisecond); err == nil {
		c.Close()
		t.Fatal("the queue is not full")
	}
	return at
}

// silent is a backend that takes connections and what they send, and says nothing. Each first flight goes to the channel;
// so does what else comes until the relay ends the connection.
func silent(t testing.TB) (netip.AddrPort, <-chan string) {
	got := make(chan string, 16)
	at := serve(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	return at, got
}

// closer is a backend that closes when it has read a byte.
func closer(t testing.TB) netip.AddrPort {
	return serve(t, func(c *net.TCPConn) {
		b := make([]byte, 1<<16)
		c.Read(b)
		for c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); ; { // all is read, so that the end is no reset
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
}

// resetter is a backend that resets when it has read a byte.
func resetter(t testing.TB) netip.AddrPort {
	return serve(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		abort(c)
	})
}
