package balance_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// kinds of targets that fail.
var faults = map[string]func(t testing.TB) (netip.AddrPort, *atomic.Int64){
	"refused": func(t testing.TB) (netip.AddrPort, *atomic.Int64) { return refusing(t), new(atomic.Int64) },
	"reset after the header": func(t testing.TB) (netip.AddrPort, *atomic.Int64) {
		return odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) {
			next()
			reset(c)
		})
	},
	"closed after the header": func(t testing.TB) (netip.AddrPort, *atomic.Int64) {
		return odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) { next() })
	},
	"half an answer": func(t testing.TB) (netip.AddrPort, *atomic.Int64) {
		return odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) {
			next()
			io.WriteString(c, "HTTP/1.1 20")
		})
	},
	"early hints": func(t testing.TB) (netip.AddrPort, *atomic.Int64) {
		return odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) {
			next()
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
		})
	},
	"half a body": func(t testing.TB) (netip.AddrPort, *atomic.Int64) {
		return odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) {
			next()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		})
	},
}

// unread is a body of which nothing is there until it is waited for.
type pipe struct {
	io.Reader
	closed atomic.Int64
}

func (p *pipe) Close() error { p.closed.Add(1); return nil }

func TestRetries(t *testing.T) {
	tests := []struct {
		fault, method string
		body          string
		ok            bool
	}{
		{"refused", "GET", "", true},
		{"refused", "POST", "", true},
		{"refused", "POST", "hello", true},
		{"refused", "PATCH", "hello", true},
		{"reset after the header", "GET", "", true},
		{"reset after the header", "HEAD", "", true},
		{"reset after the header", "OPTIONS", "", true},
		{"reset after the header", "DELETE", "", true},
		{"reset after the header", "PUT", "", true},
		{"reset after the header", "PUT", "hello", false},
		{"reset after the header", "POST", "", false},
		{"reset after the header", "POST", "hello", false},
		{"reset after the header", "PATCH", "hello", false},
		{"closed after the header", "GET", "", true},
		{"closed after the header", "POST", "", false},
		{"half an answer", "GET", "", false},
		{"early hints", "GET", "", false},
		{"half a body", "GET", "", false},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s/%s/%s", test.fault, test.method, test.body), func(t *testing.T) {
			bad, badSaw := faults[test.fault](t)
			fine, fineSaw := good(t)
			for range 20 { // of a pool of two, either may be the first
				w := newWorld(t, bad, fine)
				before := badSaw.Load() + fineSaw.Load()
				var body io.Reader
				if test.body != "" {
					body = &pipe{Reader: strings.NewReader(test.body)}
				}
				resp, got, err := w.ask(t, test.method, body)
				saw := badSaw.Load() + fineSaw.Load() - before
				if err == nil && (resp.Request.URL.Host != fine.String() || test.method != "HEAD" && got != test.body) {
					t.Fatalf("got %q of %s", got, resp.Request.URL.Host)
				}
				if test.ok && err != nil {
					t.Fatal(err)
				}
				if !test.ok && saw != 1 {
					t.Fatalf("targets have seen the request %d times, want once", saw)
				}
				if p, ok := body.(*pipe); ok && p.closed.Load() != 1 {
					t.Fatalf("the body was closed %d times, want once", p.closed.Load())
				}
			}
			if test.fault != "refused" && badSaw.Load() == 0 {
				t.Error("the failing target was never tried")
			}
		})
	}
}

// TestResetAtOnce has targets that end connections before anything was sent, or after: what is sent is seen once at most.
func TestResetAtOnce(t *testing.T) {
	bad, _ := odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) { reset(c) })
	fine, saw := good(t)
	retried := 0
	for range 50 {
		before := saw.Load()
		w := newWorld(t, bad, fine)
		if _, _, err := w.ask(t, "GET", nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.ask(t, "POST", &pipe{Reader: strings.NewReader("hello")}); err == nil {
			retried++
		}
		if n := saw.Load() - before; n > 2 {
			t.Fatalf("two requests were seen %d times", n)
		}
	}
	if retried == 0 {
		t.Error("no request got through")
	}
}

func TestAllDown(t *testing.T) {
	w := newWorld(t, refusing(t), refusing(t), refusing(t), refusing(t))
	for range 30 {
		_, _, err := w.ask(t, "GET", nil)
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("got %v, want what the last try got", err)
		}
	}
}

func TestDeadAmongTen(t *testing.T) {
	var addrs []netip.AddrPort
	dead := refusing(t)
	for range 9 {
		a, _ := good(t)
		addrs = append(addrs, a)
	}
	w := newWorld(t, append(addrs, dead)...)
	var failed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, _, err := w.ask(t, "POST", &pipe{Reader: strings.NewReader("hello")}); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d requests failed", failed.Load())
	}
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_retries_total", "connect"); got < 1 || got > 20 {
		t.Errorf("%v tries were wasted on the dead endpoint, want a few", got)
	}
}

func TestBlackhole(t *testing.T) {
	hole := blackhole(t)
	fine, _ := good(t)
	w := newWorld(t, hole, fine)
	var slowest time.Duration
	for range 4 {
		began := time.Now()
		if _, _, err := w.ask(t, "GET", nil); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 4*time.Second {
		t.Errorf("a request took %v", slowest)
	}
}
