//go:build linux

package peer_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"varco.dev/internal/kernel/peer"
	"varco.dev/internal/nettest"
)

const (
	stranger  = 54321 // a user that needs no entry anywhere
	childNet  = "VARCO_TEST_PEER_NETWORK"
	childAddr = "VARCO_TEST_PEER_ADDRESS"
	mapped    = "mapped" // a network of the child: an IPv6 socket that connects to ::ffff:127.0.0.1
)

// TestMain is also the client that connects as another user: it holds its connection until its input ends.
func TestMain(m *testing.M) {
	network := os.Getenv(childNet)
	if network == "" {
		os.Exit(m.Run())
	}
	if err := connect(network, os.Getenv(childAddr)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("connected")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func connect(network, address string) error {
	if network != mapped {
		_, err := net.Dial(network, address)
		return err
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()})
}

// startStranger connects as another user and returns what ends that process.
func startStranger(t *testing.T, network, address string) (end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // the test's binary is in a folder that others cannot enter
	cmd.Env = append(os.Environ(), childNet+"="+network, childAddr+"="+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		in.Close()
		_ = cmd.Wait() // how it ended does not matter
	}
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "connected\n" {
		t.Fatalf("other user's client says %q, error %v", line, err)
	}
	return end
}

func TestUserIsAnother(t *testing.T) {
	nettest.NeedRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // the stranger must reach the unix socket
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ name, network, listen, dial string }{
		{"IPv4", "tcp", "127.0.0.1:0", "tcp4"},
		{"IPv6", "tcp", "[::1]:0", "tcp6"},
		{"IPv4 to a listener for both", "tcp", "[::]:0", "tcp4"},
		{"IPv6 to a listener for both", "tcp", "[::]:0", "tcp6"},
		{"mapped to IPv4", "tcp", "127.0.0.1:0", mapped},
		{"mapped to a listener for both", "tcp", "[::]:0", mapped},
		{"unix", "unix", filepath.Join(dir, "s"), "unix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t, tt.network, tt.listen)
			end := startStranger(t, tt.dial, target(t, l, tt.dial))
			conn := accept(t, l)
			if uid, err := peer.User(conn); err != nil || uid != stranger {
				t.Errorf("user %d, error %v, want user %d", uid, err, stranger)
			}
			end()
			if tt.network == "unix" {
				return // who connected stays known
			}
			if uid, err := peer.User(conn); !errors.Is(err, peer.ErrGone) {
				t.Errorf("after the client ended: user %d, error %v, want %v", uid, err, peer.ErrGone)
			}
		})
	}
}

// target is where to connect to on loopback.
func target(t *testing.T, l net.Listener, network string) string {
	t.Helper()
	if l.Addr().Network() == "unix" {
		if err := os.Chmod(l.Addr().String(), 0o777); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	host := "127.0.0.1"
	if network == "tcp6" {
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}
