package balance_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/backend"
)

// TestClientGone has the client leave while a connection is being made.
func TestClientGone(t *testing.T) {
	w := newWorld(t, blackhole(t), blackhole(t))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	if _, _, err := do(w.balancer.Exchange(r, netip.Addr{}, w.to).RoundTripper(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_tries_total", ""); got != 1 {
		t.Errorf("%v tries for a client that has gone", got)
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_requests_in_flight", ""); got != 0 {
		t.Errorf("%v requests are still in flight", got)
	}
}

// broken is a body that cannot be read.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken body") }

func TestBrokenBody(t *testing.T) {
	a, _ := good(t)
	b, _ := good(t)
	w := newWorld(t, a, b)
	for range 20 {
		if _, _, err := w.ask(t, "PUT", broken{}); err == nil || !strings.Contains(err.Error(), "broken body") {
			t.Fatalf("got %v", err)
		}
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_ejections_total", ""); got != 0 {
		t.Errorf("%v ejections because of the client's body", got)
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_tries_total", ""); got != 20 {
		t.Errorf("%v tries of 20 requests whose body is broken", got)
	}
}

// TestExpectContinue has the target break while the body waits to be asked for.
func TestExpectContinue(t *testing.T) {
	for method, ok := range map[string]bool{"PUT": true, "POST": false} {
		bad, badSaw := faults["reset after the header"](t)
		fine, fineSaw := good(t)
		for range 20 {
			w := newWorld(t, bad, fine)
			before := badSaw.Load() + fineSaw.Load()
			r := httptest.NewRequest(method, "/", &pipe{Reader: strings.NewReader("hello")})
			r.RequestURI = ""
			r.Header.Set("Expect", "100-continue")
			_, got, err := do(w.balancer.Exchange(r, netip.Addr{}, w.to).RoundTripper(), r)
			if ok && (err != nil || got != "hello") {
				t.Fatalf("%s: got %q and %v", method, got, err)
			}
			if saw := badSaw.Load() + fineSaw.Load() - before; !ok && saw != 1 {
				t.Fatalf("%s: was seen %d times", method, saw)
			}
		}
		if badSaw.Load() == 0 {
			t.Error("the failing target was never tried")
		}
	}
}

// TestOnlyUnsent has idempotent requests not sent twice.
func TestOnlyUnsent(t *testing.T) {
	bad, badSaw := faults["reset after the header"](t)
	fine, fineSaw := good(t)
	tr := transport(t)
	for range 20 {
		w := newWorldOf(balance.Config{Transports: transports{tr, tr}, OnlyUnsent: true}, bad, fine)
		before := badSaw.Load() + fineSaw.Load()
		w.ask(t, "GET", nil)
		if saw := badSaw.Load() + fineSaw.Load() - before; saw != 1 {
			t.Fatalf("was seen %d times", saw)
		}
	}
}

// TestSinglePlaces has nothing to choose from.
func TestSinglePlaces(t *testing.T) {
	fine, _ := good(t)
	w := newWorld(t, fine)
	if resp, got, err := w.ask(t, "POST", strings.NewReader("hello")); err != nil || got != "hello" || resp.Request.URL.Host != fine.String() {
		t.Errorf("one endpoint: %q, %v", got, err)
	}
	w.to = &locate.Destination{Key: "node/a:10250", Scheme: locate.HTTP, Host: net.JoinHostPort("localhost", portOf(fine))}
	if _, got, err := w.ask(t, "POST", strings.NewReader("hello")); err != nil || got != "hello" {
		t.Errorf("a name: %q, %v", got, err)
	}
	w.to = destination()
	if _, _, err := w.ask(t, "GET", nil); !errors.Is(err, backend.ErrNone) {
		t.Errorf("none: %v", err)
	}
	w.to = destination(refusing(t))
	before := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_tries_total", "")
	if _, _, err := w.ask(t, "GET", nil); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("refused: %v", err)
	}
	if tries := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_tries_total", "") - before; tries != 1 {
		t.Errorf("%v tries at the only endpoint, which refuses", tries)
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_pools", ""); got != 0 {
		t.Errorf("%v pools for destinations without a choice", got)
	}
}

func portOf(a netip.AddrPort) string { _, port, _ := net.SplitHostPort(a.String()); return port }

// TestUpgrade has one of two endpoints refuse connections, and the other one speak another protocol.
func TestUpgrade(t *testing.T) {
	echo, _ := odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) {
		if next() == nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, r)
	})
	w := newWorld(t, refusing(t), echo)
	for range 10 {
		r := httptest.NewRequest("POST", "/exec", nil)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "echo")
		resp, err := w.balancer.Exchange(r, netip.Addr{}, w.to).Upgrade().RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		stream, ok := resp.Body.(interface {
			io.ReadWriteCloser
			CloseWrite() error
		})
		if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%d with a body of %T", resp.StatusCode, resp.Body)
		}
		if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_requests_in_flight", ""); got != 1 {
			t.Errorf("%v in flight while a connection is upgraded", got)
		}
		if _, err := io.WriteString(stream, "hello"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(stream, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := stream.CloseWrite(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		stream.Close()
		stream.Close()
		if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_requests_in_flight", ""); got != 0 {
			t.Errorf("%v in flight after the end", got)
		}
	}
}

// TestUpgradeIsSentOnce has endpoints break after the request.
func TestUpgradeIsSentOnce(t *testing.T) {
	a, sawA := faults["reset after the header"](t)
	b, sawB := faults["reset after the header"](t)
	w := newWorld(t, a, b)
	r := httptest.NewRequest("GET", "/ws", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	if _, err := w.balancer.Exchange(r, netip.Addr{}, w.to).Upgrade().RoundTrip(r); err == nil || sawA.Load()+sawB.Load() != 1 {
		t.Errorf("%v, and it was seen %d times", err, sawA.Load()+sawB.Load())
	}
}

// TestInFlight wants an answer to count until it is closed.
func TestInFlight(t *testing.T) {
	a, _ := good(t)
	b, _ := good(t)
	w := newWorld(t, a, b)
	r := httptest.NewRequest("POST", "/", strings.NewReader("hello"))
	r.RequestURI = ""
	resp, err := w.balancer.Exchange(r, netip.Addr{}, w.to).RoundTripper().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_requests_in_flight", ""); got != 1 {
		t.Errorf("%v in flight before the body was closed", got)
	}
	resp.Body.Close()
	resp.Body.Close()
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_requests_in_flight", ""); got != 0 {
		t.Errorf("%v in flight afterwards", got)
	}
}

// TestH2C has one of two endpoints refuse connections, and the other one speak HTTP/2.
func TestH2C(t *testing.T) {
	var major atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		major.Store(int64(r.ProtoMajor))
		io.Copy(w, r.Body)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	tr := transport(t)
	tr.Protocols = s.Config.Protocols
	for range 10 {
		w := newWorldOf(balance.Config{Transports: transports{tr, tr}}, refusing(t), addrOf(s.Listener))
		w.to.Scheme = locate.H2C
		resp, got, err := w.ask(t, "POST", &pipe{Reader: strings.NewReader("hello")})
		if err != nil || got != "hello" || major.Load() != 2 || resp.ProtoMajor != 2 {
			t.Fatalf("got %q, %v, HTTP/%d", got, err, major.Load())
		}
	}
}
