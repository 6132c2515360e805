package health

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"
)

// quiet is an API server that allocates nothing, so that only the prober's allocations are counted.
func quiet(t testing.TB) net.Listener {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer200(c)
		}
	}()
	return l
}

// answer200 gives each request the answer of an API server that is ready.
func answer200(c net.Conn) {
	defer c.Close()
	answer := []byte("HTTP/1.1 200 OK\r\nAudit-Id: 6b4d1d9c-9b1c-4e2c-8c0b-0f6c5d3f3a55\r\nCache-Control: no-cache, private\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nDate: Sat, 28 Nov 2026 12:00:00 GMT\r\nContent-Length: 2\r\n\r\nok")
	buf, n := make([]byte, 4096), 0
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		if n += m; !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
			continue
		}
		n = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func quietProber(t testing.TB) *prober {
	t.Helper()
	l := quiet(t)
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	config := &tls.Config{InsecureSkipVerify: true}
	c := New(Config{
		TLS:   func(context.Context) (*tls.Config, error) { return config, nil },
		Token: func() (string, error) { return "token", nil }, Log: slog.New(slog.DiscardHandler),
	})
	c.Set([]netip.AddrPort{addr})
	p := c.probers[addr]
	t.Cleanup(p.hangUp)
	return p
}

// TestProbeAllocations bounds what a probe on a kept connection allocates; net/http's Transport makes 57 for the same.
func TestProbeAllocations(t *testing.T) {
	p := quietProber(t)
	n := testing.AllocsPerRun(200, func() { p.probe(t.Context(), false) })
	if v := p.checker.Verdicts()[0]; v.Last != Ready || v.Latency <= 0 {
		t.Fatalf("it is %+v", v)
	}
	if n > 20 {
		t.Errorf("a probe allocates %v times", n)
	}
}

func BenchmarkProbe(b *testing.B) {
	p := quietProber(b)
	b.ReportAllocs()
	for b.Loop() {
		p.probe(b.Context(), false)
	}
}
