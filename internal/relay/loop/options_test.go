//go:build linux

package loop_test

import (
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"varco.dev/internal/relay/loop"
)

// option is a socket's setting, in the kernel's unit.
type option struct {
	name  int
	value int
}

// TestOptions wants both ends of a session to notice a peer that vanished, however the listener came about.
func TestOptions(t *testing.T) {
	timing := loop.Timing{UserTimeout: 7 * time.Second, KeepAlive: 2 * time.Second}
	wantClient := []option{{unix.TCP_NODELAY, 1}, {unix.TCP_USER_TIMEOUT, 15000}, {unix.TCP_KEEPIDLE, 10}, {unix.TCP_KEEPINTVL, 1}}
	wantBackend := []option{{unix.TCP_NODELAY, 1}, {unix.TCP_USER_TIMEOUT, 7000}, {unix.TCP_KEEPIDLE, 2}, {unix.TCP_KEEPINTVL, 1}}
	for name, c := range map[string]struct{ multipath, queued bool }{
		"plain": {}, "of MPTCP": {multipath: true}, "queued": {queued: true}, "queued at one of MPTCP": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := serve(t, echoes)
			r := start(t, options{timing: timing}, backend)
			l, at := listenAs(t, loopback, c.multipath)
			listenNow := func() {
				if err := r.Listen(loop.Listener{Name: "other", Net: l}); err != nil {
					t.Fatal(err)
				}
			}
			if !c.queued {
				listenNow()
			}
			client := dial(t, at)
			if c.queued {
				listenNow()
			}
			exchange(t, client, "hello")
			eventually(t, "the client's end has its options", func() bool { return hasOptions(t, addrOf(client.LocalAddr()), at, wantClient) })
			eventually(t, "the backend's end has its options", func() bool { return hasOptions(t, backend, netip.AddrPort{}, wantBackend) })
		})
	}
}

// TestProbesAreSpread wants sessions that begin together not to be probed together.
func TestProbesAreSpread(t *testing.T) {
	backend := serve(t, echoes)
	r := start(t, options{workers: 1, timing: loop.Timing{KeepAlive: 3 * time.Second}}, backend)
	for range 6 {
		exchange(t, r.dial(t), "hello")
	}
	for idle := 3; idle < 6; idle++ {
		eventually(t, "a backend's end is probed after its time", func() bool {
			return hasOptions(t, backend, netip.AddrPort{}, []option{{unix.TCP_KEEPIDLE, idle}, {unix.TCP_USER_TIMEOUT, 1000 * (idle + 5)}})
		})
	}
}

// hasOptions looks for a socket of this process that has them, and such a peer, and such an own address if that is valid.
func hasOptions(t *testing.T, peer, own netip.AddrPort, want []option) bool {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		fd, _ := strconv.Atoi(f.Name())
		if isBetween(fd, peer, own) && socketHas(fd, want) {
			return true
		}
	}
	return false
}

func socketHas(fd int, want []option) bool {
	for _, o := range want {
		if got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, o.name); err != nil || got != o.value {
			return false
		}
	}
	alive, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	return err == nil && alive == 1
}

func isBetween(fd int, peer, own netip.AddrPort) bool {
	there, err := unix.Getpeername(fd)
	if err != nil || toAddrPort(there) != peer {
		return false
	}
	here, err := unix.Getsockname(fd)
	return err == nil && (!own.IsValid() || toAddrPort(here) == own)
}

func toAddrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), uint16(s.Port))
	}
	return netip.AddrPort{}
}
