//go:build !race

// The tests in bubbles of time are built without the race detector, whose runtime crashes in one of a few runs of them
// (golang/go#78156, Go 1.26). The same code runs under it in the tests of real servers.

package health_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend/health"
)

// world is a checker and its backends in a bubble of synctest.
type world struct {
	t       *testing.T
	a, b    netip.AddrPort
	peers   map[netip.AddrPort]*peer
	config  health.Config
	checker *health.Checker
	log     *strings.Builder
	busy    bool // this host: Run may end late

	mu    sync.Mutex // guards the fields below
	told  [][]health.Verdict
	bytes map[netip.AddrPort]time.Time
}

// inWorld runs a test with backends "a", "b"… that all work; change may adapt the configuration.
func inWorld(t *testing.T, letters string, change func(*world), test func(*world)) {
	t.Helper()
	ca := newAuthority(t)
	cert := ca.leaf(t, time.Time{})
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, a: backendOf('a'), b: backendOf('b'), peers: map[netip.AddrPort]*peer{}, bytes: map[netip.AddrPort]time.Time{}, log: &strings.Builder{}}
		for _, addr := range backendsOf(letters) {
			w.peers[addr] = newPeer(cert)
		}
		trust := &tls.Config{RootCAs: ca.pool()}
		w.config = health.Config{
			TLS: func(context.Context) (*tls.Config, error) { return trust, nil },
			Dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
				return w.peers[addr].dial(ctx, addr)
			},
			LastByte: w.lastByte, Changed: w.changed, Log: slog.New(slog.NewTextHandler(w.log, nil)),
		}
		if change != nil {
			change(w)
		}
		w.run(letters, test)
	})
}

func (w *world) run(letters string, test func(*world)) {
	w.checker = health.New(w.config)
	w.checker.Set(backendsOf(letters))
	ctx, end := context.WithCancel(w.t.Context())
	done := make(chan error)
	go func() { done <- w.checker.Run(ctx) }()
	test(w)
	end()
	start := time.Now()
	if err := <-done; err != nil || time.Since(start) > 0 && !w.busy {
		w.t.Errorf("Run has ended %v after its context: %v", time.Since(start), err)
	}
	for _, p := range w.peers {
		p.cont()
	}
	time.Sleep(time.Minute) // of the bubble: in which the peers' goroutines end
}

func (w *world) lastByte(addr netip.AddrPort) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes[addr]
}

// byte has a byte come from a backend now.
func (w *world) byte(addr netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes[addr] = time.Now()
}

func (w *world) changed(v []health.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, v)
}

// all is what was told, such as "a:Up? b:Up?; a:Up b:Up?".
func (w *world) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, v := range w.told {
		out = append(out, verdicts(v))
	}
	return strings.Join(out, "; ")
}

// newest returns the newest verdicts that were told.
func (w *world) newest() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) == 0 {
		return ""
	}
	return verdicts(w.told[len(w.told)-1])
}

func (w *world) expect(want string) {
	w.t.Helper()
	if got := w.newest(); got != want {
		w.t.Errorf("after %v: got %s, want %s", since2000(), got, want)
	}
}

// since2000 is how long the bubble exists.
func since2000() time.Duration { return time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) }

// until waits for verdicts, and returns after which time they were told.
func (w *world) until(want string, most time.Duration) time.Duration {
	w.t.Helper()
	start := time.Now()
	for w.newest() != want {
		if time.Since(start) > most {
			w.t.Fatalf("after %v: still %s, want %s; told were %s", most, w.newest(), want, w.all())
		}
		time.Sleep(10 * time.Millisecond) // of the bubble
	}
	return time.Since(start)
}

func (w *world) verdict(addr netip.AddrPort) health.Verdict {
	for _, v := range w.checker.Verdicts() {
		if v.Addr == addr {
			return v
		}
	}
	w.t.Fatalf("there is no verdict of %v", addr)
	return health.Verdict{}
}

func TestChecker(t *testing.T) {
	another := newAuthority(t).leaf(t, time.Time{})
	tests := []struct {
		name   string
		change func(p *peer)
		want   string        // of a, in the end; b works
		last   health.Result // of a
		reason string        // is contained
	}{
		{"200", func(p *peer) {}, "a:Up b:Up", health.Ready, "ready"},
		{"401", func(p *peer) { p.answer = status(401, "") }, "a:Draining b:Up", health.Red, "/readyz answers 401, while others are ready"},
		{"403", func(p *peer) { p.answer = status(403, "") }, "a:Draining b:Up", health.Red, "403"},
		{"500", func(p *peer) {
			p.answer = status(500, "[+]ping ok\n[-]etcd failed: reason withheld\n[-]log failed\nreadyz check failed\n")
		}, "a:Draining b:Up", health.Red, "/readyz answers 500: etcd failed: reason withheld, log failed"},
		{"500 with terminal codes", func(p *peer) { p.answer = status(500, "[-]\x1b[31m\xff\n") }, "a:Draining b:Up", health.Red, "500:  [31m?"},
		{"429", func(p *peer) { p.answer = status(429, "") }, "a:Draining b:Up", health.Red, "429"},
		{"404", func(p *peer) { p.answer = status(404, "") }, "a:Draining b:Up", health.Red, "404"},
		{"100", func(p *peer) { p.answer = raw("HTTP/1.1 100 Continue\r\n\r\n") }, "a:Draining b:Up", health.Red, "100"},
		{"closes after each answer", func(p *peer) {
			p.answer = raw("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		}, "a:Up b:Up", health.Ready, ""},
		{"closes without saying so", func(p *peer) { p.answer = raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") }, "a:Up b:Up", health.Ready, ""},
		{"no length", func(p *peer) { p.answer = raw("HTTP/1.0 200 OK\r\n\r\nok") }, "a:Up b:Up", health.Ready, ""},
		{"chunks", func(p *peer) {
			p.answer = raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
		}, "a:Up b:Up", health.Ready, ""},
		{"a long answer", func(p *peer) { p.answer = status(200, strings.Repeat("x", 1<<20)) }, "a:Up b:Up", health.Ready, ""},
		{"a long header", func(p *peer) {
			p.answer = raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n")
		}, "a:Down,cut b:Up", health.Broken, "unexpected EOF"},
		{"not HTTP", func(p *peer) { p.answer = raw("220 smtp\r\n") }, "a:Draining b:Up", health.Red, "malformed"},
		{"not TLS", func(p *peer) { p.way = garbage }, "a:Draining b:Up", health.Red, "first record does not look like a TLS handshake"},
		{"closes before an answer", func(p *peer) { p.answer = raw("") }, "a:Down,cut b:Up", health.Broken, "EOF"},
		{"closes before the handshake", func(p *peer) { p.way = closes }, "a:Down,cut b:Up", health.Broken, "TLS handshake: "},
		{"late", func(p *peer) { p.delay = 1100 * time.Millisecond }, "a:Draining b:Up", health.Slow, "GET /readyz: "},
		{"not quite late", func(p *peer) { p.delay = 900 * time.Millisecond }, "a:Up b:Up", health.Ready, ""},
		{"hangs", func(p *peer) { p.running = make(chan struct{}) }, "a:Down,cut b:Up", health.Hung, "TLS handshake: "},
		{"refuses", func(p *peer) { p.way = refuses }, "a:Down,cut b:Up", health.Refused, "connection refused"},
		{"blackhole", func(p *peer) { p.way = blackhole }, "a:Down,cut b:Up", health.Unreachable, "connecting: "},
		{"no route", func(p *peer) { p.way = noRoute }, "a:Down,cut b:Up", health.Unreachable, "no route to host"},
		{"no descriptors left", func(p *peer) { p.way = lacking }, "a:Up? b:Up", health.Unknown, "too many open files"},
		{"another CA", func(p *peer) { p.tls = &tls.Config{Certificates: []tls.Certificate{another}} }, "a:Draining b:Up", health.Untrusted, "unknown authority"},
		{"demands a certificate with TLS 1.2, which does not say so", func(p *peer) {
			p.tls = p.tls.Clone()
			p.tls.ClientAuth, p.tls.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}, "a:Draining b:Up", health.Red, "handshake failure"},
		{"speaks another version", func(p *peer) {
			p.tls = p.tls.Clone()
			p.tls.MaxVersion = tls.VersionTLS11
		}, "a:Draining b:Up", health.Red, "protocol version"},
		{"408 of a connection that was idle", func(p *peer) {
			n := 0
			p.answer = func(w io.Writer, r *http.Request) bool {
				if n++; n%2 == 0 {
					return status(408, "")(w, r)
				}
				return status(200, "ok")(w, r)
			}
		}, "a:Up b:Up", health.Ready, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, "ab", func(w *world) { w.peers[w.a].set(func(p *peer) { test.change(p) }) }, func(w *world) {
				time.Sleep(9500 * time.Millisecond) // of the bubble
				w.expect(test.want)
				if v := w.verdict(w.a); v.Last != test.last || !strings.Contains(v.Reason, test.reason) {
					t.Errorf("got %v, %q; want %v, %q", v.Last, v.Reason, test.last, test.reason)
				}
				if want := test.want; strings.HasPrefix(want, "a:Up ") && strings.Contains(w.all(), "a:D") {
					t.Errorf("meanwhile it was %s", w.all())
				}
			})
		})
	}
}

// TestCheckerAsks looks at the request.
func TestCheckerAsks(t *testing.T) {
	change := func(w *world) {
		w.config.Path = "/livez?verbose"
		w.config.Token = func() (string, error) { return "secret", nil }
	}
	inWorld(t, "a", change, func(w *world) {
		synctest.Wait()
		r := w.peers[w.a].asked[0]
		got := fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", r.UserAgent(), " ", r.Header["Authorization"])
		if want := "GET /livez?verbose 192.0.2.1:6443 varco-apiserver-lb-probe [Bearer secret]"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}
