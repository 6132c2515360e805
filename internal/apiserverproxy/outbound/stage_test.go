package outbound_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/outbound"
)

// loose makes an Outbound that has no credentials for its targets on loopback, and runs it as long as the test.
func loose(t testing.TB, config outbound.Config) *outbound.Outbound {
	t.Helper()
	o, err := outbound.NewLoose(config)
	if err != nil {
		t.Fatal(err)
	}
	run(t, o)
	return o
}

func run(t testing.TB, o *outbound.Outbound) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

// target is a server that counts its connections.
type target struct {
	*httptest.Server
	mu    sync.Mutex // guards the fields below
	conns int
	open  map[net.Conn]bool
}

// newTarget starts a server; change may change it before it starts, and says whether with TLS.
func newTarget(t testing.TB, handler http.HandlerFunc, change func(*httptest.Server) bool) *target {
	t.Helper()
	s := &target{Server: httptest.NewUnstartedServer(handler), open: map[net.Conn]bool{}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.Config.ConnState = s.count
	if change(s.Server) {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *target) count(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns++
		s.open[c] = true
	case http.StateClosed, http.StateHijacked:
		delete(s.open, c)
	}
}

// connections returns how many there were, and how many are open.
func (s *target) connections() (all, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns, len(s.open)
}

// Kinds of servers.
func plain(*httptest.Server) bool   { return false }
func withTLS(*httptest.Server) bool { return true }
func withHTTP2(s *httptest.Server) bool {
	s.EnableHTTP2 = true
	return true
}
func withH2C(s *httptest.Server) bool {
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	return false
}

// describe answers with what came.
func describe(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s %s", r.Proto, r.Method, r.RequestURI, body)
}

// send sends a request and returns its answer's text.
func send(rt http.RoundTripper, r *http.Request) (string, error) {
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// request makes a request; headers are pairs of names and values.
func request(t testing.TB, method, url, body string, headers ...string) *http.Request {
	t.Helper()
	var from io.Reader
	if body != "" {
		from = struct{ io.Reader }{strings.NewReader(body)} // a stream: it cannot be had again
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, from)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// put writes a file in one step, and returns its path.
func put(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// until waits for what others do.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond) // nobody tells
	}
}

// patience is how long until waits.
const patience = 20 * time.Second

// traced has a request note the connection that it goes out on.
func traced(r *http.Request, conn *net.Conn) *http.Request {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { *conn = info.Conn }}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
}
