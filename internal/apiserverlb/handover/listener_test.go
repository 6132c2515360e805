//go:build linux

package handover_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"varco.dev/internal/apiserverlb/handover"
)

func TestClaim(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "[::]:0")
	given := []handover.Listener{{Name: "a", Net: a}, {Name: "b", Net: b}}
	other := netip.MustParseAddrPort("192.0.2.1:1")
	for _, c := range []struct {
		name   string
		addr   netip.AddrPort
		byName bool
		want   *net.TCPListener
	}{
		{"a", addrPort(a), false, a},
		{"x", addrPort(a), true, a},
		{"a", addrPort(b), true, b}, // the address goes first
		{"a", other, true, a},
		{"a", other, false, nil},
		{"x", other, true, nil},
	} {
		got, rest := handover.Claim(given, c.name, c.addr, c.byName)
		if got != c.want || len(rest) != map[bool]int{true: 2, false: 1}[got == nil] {
			t.Errorf("%+v: got %v, and %d more", c, got, len(rest))
		}
	}
	if given[0].Net != a || given[1].Net != b {
		t.Error("the given list was changed")
	}
}

// TestFamilies: a listener at 0.0.0.0 leaves IPv6 alone, one at [::] takes both.
func TestFamilies(t *testing.T) {
	four := listen(t, "0.0.0.0:0")
	six := listen(t, fmt.Sprintf("[::1]:%d", addrPort(four).Port()))
	check(t, six)
	check(t, four)
	both := listen(t, "[::]:0")
	check(t, both)
	if got := addrPort(four).Addr(); got != netip.IPv4Unspecified() {
		t.Errorf("got %v", got)
	}
	go func() {
		if c, err := both.Accept(); err == nil {
			_ = c.Close()
		}
	}()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", addrPort(both).Port()))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestPlainTCP: package net would take Multipath TCP, whose sockets have no TCP_USER_TIMEOUT.
func TestPlainTCP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::]:0"} {
		raw, err := listen(t, address).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		protocol := 0
		_ = raw.Control(func(fd uintptr) {
			protocol, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PROTOCOL)
		})
		if err != nil || protocol != syscall.IPPROTO_TCP {
			t.Errorf("%s: got protocol %d, %v", address, protocol, err)
		}
	}
}

// TestDup: both descriptors are of one socket, which stays non-blocking.
func TestDup(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	twin, err := handover.Dup(l)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = twin.Close() }()
	_ = l.Close()
	check(t, twin)
	raw, err := twin.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var flags uintptr
	_ = raw.Control(func(fd uintptr) { flags, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0) })
	if flags&syscall.O_NONBLOCK == 0 {
		t.Error("the socket is blocking")
	}
	if _, err := handover.Dup(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
