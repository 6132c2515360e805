package balance_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
)

// deaf is a connection whose end is not heard as long as it is open, as if the goroutine that reads it had no time.
type deaf struct {
	writes
	ended  chan struct{} // closed when its end has come
	once   sync.Once
	closed chan struct{}
	shut   sync.Once
	muted  atomic.Bool // what comes from now on is its end, to be kept back
	broken bool        // writes fail: the kernel knows already
}

// Read implements net.Conn.
func (d *deaf) Read(p []byte) (int, error) {
	n, err := d.writes.Read(p)
	if d.muted.Load() {
		d.once.Do(func() { close(d.ended) })
		<-d.closed
	}
	return n, err
}

// Write implements net.Conn.
func (d *deaf) Write(p []byte) (int, error) {
	select {
	case <-d.ended:
		if d.broken {
			return 0, syscall.EPIPE
		}
	default:
	}
	return d.writes.Write(p)
}

// Close implements net.Conn.
func (d *deaf) Close() error {
	d.shut.Do(func() { close(d.closed) })
	return d.writes.Close()
}

// TestStaleConnection has a target close a connection that was used before and is idle, and the proxy not hear of it before
// the next request is to go out.
func TestStaleConnection(t *testing.T) {
	for _, test := range []struct {
		name, method, body string
		broken, tls        bool
		plain              bool // the connections do not count what is written
	}{
		{"POST", "POST", "hello", false, false, false},
		{"POST without a body", "POST", "", false, false, false},
		{"PATCH", "PATCH", "hello", false, false, false},
		{"POST over TLS", "POST", "hello", false, true, false},
		{"POST that cannot be written", "POST", "hello", true, false, false},
		{"POST over TLS that cannot be written", "POST", "hello", true, true, false},
		{"PUT that cannot be written", "PUT", "hello", true, false, false},
		{"POST that cannot be written, on one that does not count", "POST", "hello", true, false, true},
	} {
		t.Run(test.name, func(t *testing.T) { testStale(t, test.method, test.body, test.broken, test.tls, test.plain) })
	}
}

func testStale(t *testing.T, method, body string, broken, secure, plain bool) {
	var mu sync.Mutex
	seen := map[string]int{}
	var drop sync.Map // connections of the server that are idle
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen[r.Method+" "+string(b)]++
		mu.Unlock()
		w.Write(b)
	}))
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			drop.Store(c, nil)
		}
	}
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	var first *deaf
	tr := transport(t)
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		d := &deaf{ended: make(chan struct{}), closed: make(chan struct{}), broken: broken}
		d.writes.Conn = c
		if first == nil {
			first = d
		}
		if plain {
			return struct{ net.Conn }{d}, nil
		}
		return d, nil
	}
	if secure {
		tr.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}
		tr.TLSClientConfig.RootCAs.AddCert(s.Certificate())
	}
	other, _ := good(t)
	w := newWorldOf(balance.Config{Transports: transports{tr, tr}}, addrOf(s.Listener), other)
	w.to.Endpoints = w.to.Endpoints[:1]
	if secure {
		w.to.Scheme = locate.HTTPS
	}
	if _, _, err := w.ask(t, "GET", nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() (any, bool) { n := 0; drop.Range(func(any, any) bool { n++; return true }); return n, n == 1 })
	first.muted.Store(true)
	drop.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	select {
	case <-first.ended:
	case <-time.After(within):
		t.Fatal("the connection does not end")
	}
	var content io.Reader
	if body != "" {
		content = &pipe{Reader: strings.NewReader(body)}
	}
	_, got, err := w.ask(t, method, content)
	if err != nil || got != body || seen[method+" "+body] != 1 {
		t.Fatalf("got %q, %v; the target has seen %v", got, err, seen)
	}
}

// TestStaleIsNobodysFault wants an endpoint that closes idle connections to be left in.
func TestStaleIsNobodysFault(t *testing.T) {
	rude, _ := odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) {
		next()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") // and the connection ends, without a word
	})
	fine, _ := good(t)
	w := newWorld(t, rude, fine)
	for range 100 {
		if _, _, err := w.ask(t, "GET", nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_ejections_total", ""); got != 0 {
		t.Errorf("%v ejections", got)
	}
}

// TestOnlyUnsentMeansOnce has a target that hears a second request on a connection and ends it. net/http would send one that is
// idempotent again by itself.
func TestOnlyUnsentMeansOnce(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		a, heard := odd(t, func(c *net.TCPConn, _ *bufio.Reader, next func() *http.Request) {
			if next() == nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			next()
		})
		tr := transport(t)
		w := newWorldOf(balance.Config{Transports: transports{tr, tr}, OnlyUnsent: true}, a)
		if _, _, err := w.ask(t, "GET", nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.ask(t, method, nil); err == nil || !strings.Contains(err.Error(), "not sent twice") {
			t.Errorf("%s: got %v, want that it is not sent twice", method, err)
		}
		if n := heard.Load(); n != 2 {
			t.Errorf("%s: the target has heard %d requests, want 2", method, n)
		}
		if _, _, err := w.ask(t, "GET", nil); err != nil {
			t.Errorf("%s: then %v", method, err)
		}
	}
}
