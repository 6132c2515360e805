package health_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend/health"
)

// These tests have real servers on the loopback, and wait for verdicts.

// server is an HTTPS server of net/http on a port of its own, that can be started again.
type server struct {
	t     *testing.T
	addr  netip.AddrPort
	tls   *tls.Config
	mu    sync.Mutex // guards the fields below
	http  *http.Server
	token string // that is wanted; "": none
	asked int    // requests
}

func newServer(t *testing.T, config *tls.Config) *server {
	t.Helper()
	s := &server{t: t, addr: netip.MustParseAddrPort("127.0.0.1:0"), tls: config}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr.String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	s.http = &http.Server{Handler: s, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go s.http.Serve(tls.NewListener(l, s.tls))
}

func (s *server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.http.Close()
}

func (s *server) want(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

func (s *server) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.WriteHeader(http.StatusInternalServerError) // not 401, which counts as Up
		return
	}
	io.WriteString(w, "ok")
}

// watch is a checker of one backend, and what it tells.
type watch struct {
	t       *testing.T
	checker *health.Checker
	told    chan health.Verdict
}

func newWatch(t *testing.T, addr netip.AddrPort, c health.Config) *watch {
	t.Helper()
	w := &watch{t: t, told: make(chan health.Verdict, 1000)}
	c.Interval, c.Log = 20*time.Millisecond, slog.New(slog.DiscardHandler)
	c.Changed = func(v []health.Verdict) { w.told <- v[0] }
	w.checker = health.New(c)
	w.checker.Set([]netip.AddrPort{addr})
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.checker.Run(ctx) }()
	t.Cleanup(func() {
		end()
		<-done
	})
	return w
}

// until waits for a state.
func (w *watch) until(state health.State, proven bool) health.Verdict {
	w.t.Helper()
	for {
		select {
		case v := <-w.told:
			if v.State == state && v.Proven == proven {
				return v
			}
		case <-time.After(20 * time.Second):
			w.t.Fatalf("not %v: %+v", state, w.checker.Verdicts())
		}
	}
}

// last waits for a result.
func (w *watch) last(r health.Result) health.Verdict {
	w.t.Helper()
	for range 2000 {
		if v := w.checker.Verdicts()[0]; v.Last == r {
			return v
		}
		time.Sleep(10 * time.Millisecond) // there is no event for a result that changes no state
	}
	w.t.Fatalf("not %v: %+v", r, w.checker.Verdicts())
	return health.Verdict{}
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func keyPEM(t *testing.T, c tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func certPEM(c tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}

// TestFilesRotate changes each file while probes go on.
func TestFilesRotate(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	files := health.Files{CAFile: filepath.Join(dir, "ca"), TokenFile: filepath.Join(dir, "token"), ServerName: "apiserver"}
	write(t, files.CAFile, ca.pem())
	write(t, files.TokenFile, []byte("one\n"))
	s := newServer(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, time.Time{})}})
	s.want("one")
	creds := health.NewCredentials(files, slog.New(slog.DiscardHandler))
	w := newWatch(t, s.addr, health.Config{TLS: creds.TLS, Token: creds.Token})
	w.until(health.Up, true)

	s.want("two")
	w.until(health.Draining, true)
	write(t, files.TokenFile, []byte("two\n"))
	w.until(health.Up, true)

	write(t, files.CAFile, other.pem())
	if v := w.until(health.Draining, true); v.Last != health.Untrusted {
		t.Errorf("with another CA it is %+v", v)
	}
	write(t, files.CAFile, []byte("half written"))
	if _, err := creds.TLS(t.Context()); err != nil {
		t.Errorf("what was read before is lost: %v", err)
	}
	write(t, files.CAFile, append(other.pem(), ca.pem()...))
	w.until(health.Up, true)
}

// TestClientCertificate has a server demand one; without, it is alive, and its readiness unknown.
func TestClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	leaf := ca.leaf(t, time.Time{})
	dir := t.TempDir()
	files := health.Files{CAFile: filepath.Join(dir, "ca"), CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
	write(t, files.CAFile, ca.pem())
	write(t, files.CertFile, certPEM(leaf))
	write(t, files.KeyFile, keyPEM(t, leaf))
	s := newServer(t, &tls.Config{Certificates: []tls.Certificate{leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()})

	with := newWatch(t, s.addr, health.Config{TLS: health.NewCredentials(files, slog.New(slog.DiscardHandler)).TLS})
	with.until(health.Up, true)
	with.last(health.Ready)
	files.CertFile, files.KeyFile = "", ""
	without := newWatch(t, s.addr, health.Config{TLS: health.NewCredentials(files, slog.New(slog.DiscardHandler)).TLS})
	without.until(health.Up, true)
	if v := without.last(health.Alive); !strings.Contains(v.Reason, "certificate required") {
		t.Errorf("without one it is %+v", v)
	}
}

// TestServerRestarts has a server end and start again between two probes of a kept connection.
func TestServerRestarts(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, time.Time{})}})
	trust := &tls.Config{RootCAs: ca.pool()}
	var gate sync.Mutex // keeps probes from seeing that nobody listens for a moment
	w := newWatch(t, s.addr, health.Config{
		TLS: func(context.Context) (*tls.Config, error) { return trust, nil },
		Dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			gate.Lock()
			defer gate.Unlock()
			return new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		},
	})
	w.until(health.Up, true)
	for range 3 {
		gate.Lock()
		s.stop()
		s.start()
		gate.Unlock()
		for asked := s.requests(); s.requests() < asked+3; { // then the next restart finds a kept connection
			time.Sleep(time.Millisecond) // there is no event for a probe
		}
	}
	w.last(health.Ready)
	select {
	case v := <-w.told:
		t.Errorf("meanwhile it was %+v", v)
	default:
	}
}

func TestRealFaults(t *testing.T) {
	listen := func(t *testing.T) *net.TCPListener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.(*net.TCPListener)
	}
	tests := []struct {
		name string
		addr func(t *testing.T) net.Addr
		want health.Result
	}{
		{"nobody listens", func(t *testing.T) net.Addr {
			l := listen(t)
			l.Close()
			return l.Addr()
		}, health.Refused},
		{"nobody accepts", func(t *testing.T) net.Addr { return listen(t).Addr() }, health.Hung},
		{"resets", func(t *testing.T) net.Addr {
			l := listen(t)
			go func() {
				for {
					c, err := l.AcceptTCP()
					if err != nil {
						return
					}
					c.SetLinger(0)
					c.Close()
				}
			}()
			return l.Addr()
		}, health.Broken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			none := &tls.Config{RootCAs: x509.NewCertPool()}
			addr := test.addr(t).(*net.TCPAddr).AddrPort()
			w := newWatch(t, addr, health.Config{
				TLS: func(context.Context) (*tls.Config, error) { return none, nil },
			})
			if v := w.until(health.Down, false); v.Last != test.want || !v.Open {
				t.Errorf("it is %+v, want %v", v, test.want)
			}
		})
	}
}

// TestCredentialsKeepOld has a file be halfway replaced: what was read before stays in force, and the log says so once.
func TestCredentialsKeepOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, log := filepath.Join(t.TempDir(), "ca"), &strings.Builder{}
		write(t, file, newAuthority(t).pem())
		c := health.NewCredentials(health.Files{CAFile: file}, slog.New(slog.NewTextHandler(log, nil)))
		read := func() *tls.Config {
			time.Sleep(time.Second) // of the bubble
			got, err := c.TLS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		first := read()
		write(t, file, []byte("half"))
		for range 2 {
			if read() != first {
				t.Error("what was read before is lost")
			}
		}
		if n := strings.Count(log.String(), "stays in force"); n != 1 {
			t.Errorf("logged %d times: %s", n, log)
		}
		write(t, file, newAuthority(t).pem())
		if read() == first {
			t.Error("the new one is not read")
		}
	})
}

// TestCredentials has files that are at fault from the beginning.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	none, bad := filepath.Join(dir, "none"), filepath.Join(dir, "bad")
	write(t, bad, []byte("nothing"))
	large := filepath.Join(dir, "large")
	write(t, large, make([]byte, 1<<20+1))
	tests := []struct {
		files health.Files
		want  string
	}{
		{health.Files{CAFile: none}, "reading the CA: open"},
		{health.Files{CAFile: large}, "reading the CA: read " + large + ": it is larger than"},
		{health.Files{CAFile: os.DevNull}, "reading the CA: read " + os.DevNull + ": it is a device, not a file"},
		{health.Files{CertFile: bad, KeyFile: os.DevNull}, "reading the client certificate: read " + os.DevNull},
		{health.Files{TokenFile: dir}, "reading the token: read " + dir},
		{health.Files{CAFile: bad}, "reading the CA: " + bad + " has no certificate"},
		{health.Files{CertFile: bad, KeyFile: bad}, "reading the client certificate: tls: failed to find"},
		{health.Files{TokenFile: none}, "reading the token: open"},
	}
	for _, test := range tests {
		c := health.NewCredentials(test.files, slog.New(slog.DiscardHandler))
		_, err := c.TLS(t.Context())
		if err == nil {
			_, err = c.Token()
		}
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%+v: %v", test.files, err)
		}
	}
	c := health.NewCredentials(health.Files{}, slog.New(slog.DiscardHandler))
	one, err := c.TLS(t.Context())
	two, _ := c.TLS(t.Context())
	if token, tokenErr := c.Token(); err != nil || tokenErr != nil || token != "" || one != two || one.RootCAs != nil {
		t.Errorf("of no files: %v, %v, %q, %v", err, tokenErr, token, one)
	}
}
