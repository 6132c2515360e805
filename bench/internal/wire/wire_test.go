package wire_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"

	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/wire"
)

// address is one that nobody has now.
func address(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// serve starts a server and returns its address.
func serve(t *testing.T) netip.AddrPort {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &wire.Server{Addresses: []netip.AddrPort{address(t)}, Certificate: pair, Log: slog.New(slog.DiscardHandler),
		Ready: filepath.Join(t.TempDir(), "ready")}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for {
		if _, err := os.Stat(s.Ready); !errors.Is(err, fs.ErrNotExist) {
			return s.Addresses[0]
		}
		probe.Sleep(time.Millisecond)
	}
}

func TestExchanges(t *testing.T) {
	at := serve(t)
	p, err := wire.NewPinger(at, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 2 { // the second goes on where the first ended
		got, err := p.Run(t.Context(), 50*time.Millisecond)
		if err != nil || len(got.Latencies) < 4 || got.Took < 50*time.Millisecond {
			t.Fatalf("%d exchanges in %s: %v", len(got.Latencies), got.Took, err)
		}
	}
	c := wire.Connector{To: at, From: []netip.Addr{{}, netip.MustParseAddr("127.0.0.2")}}
	got, err := c.Run(t.Context(), 50*time.Millisecond)
	if err != nil || len(got.Latencies) < 2 {
		t.Errorf("%d connections: %v", len(got.Latencies), err)
	}
	if c.To = address(t); true {
		if got, err := c.Run(t.Context(), 50*time.Millisecond); err == nil {
			t.Errorf("%d connections to nobody", len(got.Latencies))
		}
	}
}

func here(fn func() error) error { return fn() }

func TestBulk(t *testing.T) {
	at := serve(t)
	for _, connections := range []int{1, 3} {
		if _, err := wire.Bulk(t.Context(), here, at, connections, 10<<20+1); err != nil {
			t.Errorf("%d connections: %v", connections, err)
		}
	}
}

func TestIdle(t *testing.T) {
	i, err := wire.OpenIdle(serve(t), 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Ask(); err != nil {
		t.Error(err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
}

// A connection that begins with TLS is asked by a health check.
func TestReady(t *testing.T) {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	at := serve(t)
	for range 2 {
		res, err := c.Get("https://" + at.String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Error(res.Status)
		}
	}
}

// cut leads to the server and ends the connection after so many bytes of it.
func cut(t *testing.T, to netip.AddrPort, bytes int) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", to.String())
				if err != nil {
					return
				}
				defer server.Close()
				b := make([]byte, 64<<10)
				n, _ := client.Read(b)
				_, _ = server.Write(b[:n])
				for left := bytes; left > 0; {
					n, err := server.Read(b[:min(left, len(b))])
					if err != nil {
						return
					}
					_, _ = client.Write(b[:n])
					left -= n
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// What is missing does not pass for measured.
func TestCutShort(t *testing.T) {
	at := serve(t)
	if _, err := wire.Bulk(t.Context(), here, cut(t, at, 1<<20), 1, 2<<20); err == nil {
		t.Error("half of the bytes are said to be all")
	}
	if _, err := wire.NewPinger(cut(t, at, 100), 1); err == nil {
		t.Error("half of an answer is said to be one")
	}
	if i, err := wire.OpenIdle(cut(t, at, 256), 2); err != nil || i.Ask() == nil {
		t.Errorf("closed connections are said to be idle ones: %v", err)
	}
}
