package observe_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/observe"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		body string
	}{
		{nil, 200, "ok\n"},
		{errors.New("not yet"), 503, "not yet\n"},
	} {
		w := httptest.NewRecorder()
		observe.Check(func() error { return c.err }).ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		if w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("for %v: got %d %q", c.err, w.Code, w.Body)
		}
	}
}

func TestServe(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	if err := observe.Serve(t.Context(), address, http.NotFoundHandler()); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("on a port that is taken: got error %v", err)
	}
	taken.Close()

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- observe.Serve(ctx, address, observe.Check(func() error { return nil })) }()
	if got := get(t, "http://"+address); got != "ok\n" {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve returned %v at the end of its context", err)
	}
	if err := observe.Serve(ctx, "", nil); err != nil {
		t.Errorf("without an address: got %v", err)
	}
}

// TestKeep takes the port away at first: the server comes when it is free, without anyone's help.
func TestKeep(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended, logged := make(chan struct{}), make(chan string, 8)
	go func() {
		defer close(ended)
		ok := observe.Check(func() error { return nil })
		observe.Keep(ctx, taken.Addr().String(), ok, slog.New(slog.NewTextHandler(lines(logged), nil)))
	}()
	if line := <-logged; !strings.Contains(line, taken.Addr().String()) {
		t.Errorf("logged %q", line)
	}
	taken.Close()
	if got := get(t, "http://"+taken.Addr().String()); got != "ok\n" {
		t.Errorf("got %q", got)
	}
	cancel()
	<-ended
}

// lines hands each write on.
type lines chan<- string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// get asks until the server listens.
func get(t *testing.T, url string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get(url)
		if err == nil {
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // between two looks at the port
	}
}
