package outbound_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/outbound"
)

// TestNothingIsLeft has clients that go away at every stage: before there is a connection, while a header is waited for,
// in the midst of an answer, of a body, and of an upgraded connection. Neither goroutines nor file descriptors are left.
func TestNothingIsLeft(t *testing.T) {
	const clients = 500 // for each kind of target
	server := func(kind func(s *httptest.Server) bool) *target { return newTarget(t, stubborn, kind) }
	servers := map[string]*target{"http": server(plain), "https": server(withHTTP2), "h2c": server(withH2C)}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)

	ctx, cancel := context.WithCancel(context.Background())
	o, err := outbound.NewLoose(outbound.Config{IdleTimeout: patience, HeaderTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	var all sync.WaitGroup
	slots := make(chan struct{}, 32)
	for scheme, s := range servers {
		for i := range clients {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				comeAndGo(o, outbound.Profile{Scheme: scheme}, s.URL, i)
			})
		}
	}
	all.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, s := range servers {
		until(t, "the target's connections are closed", func() bool { _, open := s.connections(); return open == 0 })
	}
	until(t, fmt.Sprintf("%d goroutines and %d files are left", goroutines, files), func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}

// TestRunEnds closes the connections that wait for use, which nobody would for 90 seconds.
func TestRunEnds(t *testing.T) {
	servers := map[string]*target{"http": newTarget(t, describe, plain), "https": newTarget(t, describe, withTLS)}
	o, err := outbound.NewLoose(outbound.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for scheme, s := range servers {
		if _, err := send(o.RoundTripper(outbound.Profile{Scheme: scheme}), request(t, "GET", s.URL, "")); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Run(ctx); err != nil {
		t.Error(err)
	}
	for scheme, s := range servers {
		until(t, scheme, func() bool { _, open := s.connections(); return open == 0 })
	}
}

// stubborn is a target that never ends by itself.
func stubborn(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/silent":
		<-r.Context().Done()
	case "/stream":
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "more and more\n"); err != nil {
				return
			}
		}
	case "/parrot":
		parrot(w, r)
	default:
		io.Copy(io.Discard, r.Body)
	}
}

// comeAndGo sends a request and gives up after a while.
func comeAndGo(o *outbound.Outbound, p outbound.Profile, url string, i int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%20)*time.Millisecond)
	defer cancel()
	path := []string{"/silent", "/stream", "/parrot", "/body", "/refused"}[i%5]
	rt := o.RoundTripper(p)
	r, err := http.NewRequestWithContext(ctx, "POST", url+path, nil)
	if err != nil {
		return
	}
	switch path {
	case "/parrot":
		rt = o.Upgrade(p)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "parrot")
	case "/body":
		r.Body, r.ContentLength = io.NopCloser(endless{ctx}), -1
	case "/refused":
		r.URL.Host = "169.254.169.254:80"
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return
	}
	io.CopyN(io.Discard, resp.Body, 5)
	resp.Body.Close()
}

// endless is a body that ends with its context.
type endless struct{ ctx context.Context }

func (e endless) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return len(p), nil
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
