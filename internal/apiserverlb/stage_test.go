package apiserverlb_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiwatch/apitest"
)

// server is an API server: it serves over TLS, answers /readyz as it is told, streams at /watch, and can hang as a process
// does that is stopped: its kernel takes connections and bytes, and nobody answers.
type server struct {
	*httptest.Server
	addr     string
	ready    atomic.Int64    // status of /readyz
	watches  atomic.Int64    // that are open
	requests atomic.Int64    // but for /readyz
	asked    atomic.Int64    // for /readyz through a balancer
	goOn     chan struct{}   // closed: /slow ends
	api      *apitest.Server // below /apis/

	gate sync.RWMutex // held for writing while it hangs
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{goOn: make(chan struct{}), api: apitest.New(t)}
	s.ready.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.UserAgent(), "varco-apiserver-lb-ready") {
			s.asked.Add(1)
		}
		w.WriteHeader(int(s.ready.Load()))
	})
	mux.HandleFunc("/watch", s.watch)
	mux.HandleFunc("/api/v1/pods", s.watch)
	mux.HandleFunc("/slow", s.slow)
	mux.HandleFunc("/who", s.who)
	mux.Handle("/apis/", s.api)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.requests.Add(1)
		fmt.Fprint(w, s.addr)
	})
	s.Server = httptest.NewUnstartedServer(mux)
	s.Listener = gated{s.Listener, &s.gate}
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	s.addr = s.Listener.Addr().String()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *server) watch(w http.ResponseWriter, r *http.Request) {
	s.watches.Add(1)
	defer s.watches.Add(-1)
	fmt.Fprintln(w, s.addr)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// slow answers half, and the rest when it may.
func (s *server) slow(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, "begun")
	w.(http.Flusher).Flush()
	select {
	case <-r.Context().Done():
	case <-s.goOn:
		fmt.Fprintln(w, "ended")
	}
}

// who answers who the client is, and who says so.
func (s *server) who(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server-Address", s.addr)
	if len(r.TLS.PeerCertificates) > 0 {
		fmt.Fprintf(w, "%s says %s %v", r.TLS.PeerCertificates[0].Subject.CommonName, r.Header.Get("X-Remote-User"), r.Header["X-Remote-Group"])
	}
}

// hang has it hang until the function returned is called.
func (s *server) hang() func() {
	s.gate.Lock()
	return s.gate.Unlock
}

// gated is a listener whose connections say nothing while the gate is held.
type gated struct {
	net.Listener
	gate *sync.RWMutex
}

func (l gated) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return gatedConn{c, l.gate}, nil
}

type gatedConn struct {
	net.Conn
	gate *sync.RWMutex
}

func (c gatedConn) Write(b []byte) (int, error) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	return c.Conn.Write(b)
}

// balancer is one that runs, with clients that know its servers.
type balancer struct {
	*apiserverlb.LB
	t    *testing.T
	addr string
	tls  *tls.Config
	end  func() // ends Run, and waits for it
}

// settings are those of a balancer over servers, at a port that was free just now.
func settings(t *testing.T, servers ...*server) config.Config {
	t.Helper()
	c := config.Default()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c.Listeners = []config.Listener{{Address: l.Addr().String()}}
	for _, s := range servers {
		c.Backends.Static = append(c.Backends.Static, config.Static{Address: s.addr})
	}
	c.Health.CAFile = filepath.Join(t.TempDir(), "ca.crt")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: servers[0].Certificate().Raw})
	if err := os.WriteFile(c.Health.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c.MetricsAddress = ""
	c.Drain.Timeout.Duration = time.Second
	c.Complete()
	return c
}

func start(t *testing.T, c config.Config, servers ...*server) *balancer {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return startWith(t, apiserverlb.Config{Settings: c}, servers...)
}

func startWith(t *testing.T, config apiserverlb.Config, servers ...*server) *balancer {
	t.Helper()
	c := config.Settings
	config.Version, config.Log = "test", slog.New(slog.NewTextHandler(t.Output(), nil))
	lb, err := apiserverlb.New(config)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(servers[0].Certificate())
	b := &balancer{LB: lb, t: t, addr: c.Listeners[0].Address, tls: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- lb.Run(ctx) }()
	b.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(b.end)
	select {
	case <-lb.Serving():
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	}
	return b
}

// dial opens a connection of TLS through the balancer.
func (b *balancer) dial() (*tls.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", b.addr, b.tls)
}

// kept is a connection on which something is asked time and again.
type kept struct {
	*tls.Conn
	r *bufio.Reader
}

func (b *balancer) kept() *kept {
	b.t.Helper()
	c, err := b.dial()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return &kept{c, bufio.NewReader(c)}
}

// get returns the body of an answer.
func (k *kept) get(path string) (string, error) {
	if _, err := fmt.Fprintf(k, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// watch begins to watch, and returns the address of the server that answers; done is closed when the stream is over.
func (b *balancer) watch() (addr string, done <-chan struct{}) {
	b.t.Helper()
	k := b.kept()
	if _, err := fmt.Fprint(k, "GET /watch HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	body := bufio.NewReader(resp.Body)
	line, err := body.ReadString('\n')
	if err != nil {
		b.t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, body) // any end is one
	}()
	return strings.TrimSpace(line), over
}

// once asks over a new connection.
func (b *balancer) once() (string, error) {
	c, err := b.dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	return (&kept{c, bufio.NewReader(c)}).get("/")
}

// state returns a backend's state.
func (b *balancer) state(s *server) apiserverlb.BackendState {
	for _, of := range b.Status().Backends {
		if of.Address == s.addr {
			return of
		}
	}
	return apiserverlb.BackendState{}
}

// await waits until something is so.
func (b *balancer) await(what string, patience time.Duration, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond) // nothing tells when
	}
	b.t.Fatalf("never seen that %s; status: %+v", what, b.Status())
}

func (b *balancer) awaitState(s *server, state string) {
	b.t.Helper()
	b.await(s.addr+" is "+state, 10*time.Second, func() bool { return b.state(s).State == state })
}

// proven waits until all servers were seen ready.
func (b *balancer) proven(servers ...*server) {
	b.t.Helper()
	for _, s := range servers {
		b.await(s.addr+" is seen ready", 10*time.Second, func() bool { return b.state(s).Reason == "ready" })
	}
}

func addrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
