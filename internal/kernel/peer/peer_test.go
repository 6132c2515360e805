//go:build linux

package peer_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"varco.dev/internal/kernel/peer"
)

// wrapped is a connection in another, as a limiter or TLS has it.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// elsewhere is a connection whose other end has this address.
type elsewhere struct {
	net.Conn
	from net.Addr
}

func (e elsewhere) RemoteAddr() net.Addr { return e.from }
func (e elsewhere) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8001} }

// pair returns both ends of a connection.
func pair(t *testing.T, network, address string) (client, server net.Conn) {
	t.Helper()
	l := listen(t, network, address)
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, accept(t, l)
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestUserIsOurs(t *testing.T) {
	addresses := map[string]string{"127.0.0.1:0": "tcp", "127.8.9.10:0": "tcp", "[::1]:0": "tcp", filepath.Join(t.TempDir(), "s"): "unix"}
	for address, network := range addresses {
		_, server := pair(t, network, address)
		for _, conn := range []net.Conn{server, wrapped{server}, tls.Server(wrapped{server}, nil)} {
			uid, err := peer.User(conn)
			if err != nil || int(uid) != os.Geteuid() {
				t.Errorf("%s through %T: user %d, error %v, want user %d", address, conn, uid, err, os.Geteuid())
			}
		}
	}
}

func TestUserOfHalfClosed(t *testing.T) {
	client, server := pair(t, "tcp", "127.0.0.1:0")
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(server); err != nil {
		t.Fatal(err)
	}
	if uid, err := peer.User(server); err != nil || int(uid) != os.Geteuid() {
		t.Errorf("user %d, error %v, want user %d", uid, err, os.Geteuid())
	}
}

// TestUserGone closes the client's end. Its socket waits for its end then, and the kernel says that it is root's.
func TestUserGone(t *testing.T) {
	client, server := pair(t, "tcp", "127.0.0.1:0")
	client.Close()
	if _, err := io.ReadAll(server); err != nil {
		t.Fatal(err)
	}
	if uid, err := peer.User(server); !errors.Is(err, peer.ErrGone) {
		t.Errorf("user %d, error %v, want %v", uid, err, peer.ErrGone)
	}
	server.Close()
	// The client's end is in TIME_WAIT once it has seen the server's.
	for range 50 {
		if uid, err := peer.User(server); !errors.Is(err, peer.ErrGone) {
			t.Fatalf("after both ends closed: user %d, error %v, want %v", uid, err, peer.ErrGone)
		}
		time.Sleep(time.Millisecond) // lets the end of the connection go through the kernel
	}
}

// TestUserIsNoListener asks for a connection that is gone while someone listens on what was its port.
func TestUserIsNoListener(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	uid, err := peer.User(elsewhere{from: l.Addr()})
	if !errors.Is(err, peer.ErrGone) {
		t.Errorf("user %d, error %v, want %v", uid, err, peer.ErrGone)
	}
}

func TestUserOfOthers(t *testing.T) {
	left, right := net.Pipe()
	defer left.Close()
	tests := []struct {
		name string
		conn net.Conn
		want error
	}{
		{"another computer", elsewhere{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:4000"))}, peer.ErrRemote},
		{"another computer, IPv6", elsewhere{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:4000"))}, peer.ErrRemote},
		{"another computer, mapped", elsewhere{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:192.0.2.1]:4000"))}, peer.ErrRemote},
		{"any address", elsewhere{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("0.0.0.0:4000"))}, peer.ErrRemote},
		{"pipe", right, errors.ErrUnsupported},
		{"UDP", elsewhere{from: &net.UDPAddr{}}, errors.ErrUnsupported},
	}
	for _, tt := range tests {
		if uid, err := peer.User(tt.conn); !errors.Is(err, tt.want) {
			t.Errorf("%s: user %d, error %v, want %v", tt.name, uid, err, tt.want)
		}
	}
	if _, err := peer.User(elsewhere{from: &net.UnixAddr{}}); err == nil {
		t.Error("a unix socket that cannot be asked gave no error")
	}
}

func BenchmarkUser(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	for b.Loop() {
		if _, err := peer.User(server); err != nil {
			b.Fatal(err)
		}
	}
}
