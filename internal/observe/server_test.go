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
	"sync"
	"testing"
	"testing/synctest"
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

// TestServerTriesAgain takes the port away at first: the server comes when it is free, without anyone's help.
func TestServerTriesAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended, logged := make(chan struct{}), make(chan string, 8)
	go func() {
		defer close(ended)
		ok := observe.Check(func() error { return nil })
		log := slog.New(slog.NewTextHandler(lines(logged), nil))
		if err := (observe.Server{Address: taken.Addr().String(), Handler: ok, Log: log}).Run(ctx); err != nil {
			t.Errorf("ended with %v", err)
		}
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

// TestServerHardFail has a taken port end the server, and tells why.
func TestServerHardFail(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var told error
	got := observe.Server{
		Address: taken.Addr().String(), Handler: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
		HardFail: true, Failed: func(err error) { told = err },
	}.Run(t.Context())
	if got == nil || told == nil || told.Error() != got.Error() {
		t.Errorf("ended with %v, told %v", got, told)
	}
}

// TestServerTellsOnce takes the port away for several tries: one event is enough.
func TestServerTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := observe.Server{
			Address: "127.0.0.1:-1", Handler: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
			Failed: func(error) { told++ },
		}.Run(ctx)
		if err != nil || told != 1 {
			t.Errorf("ended with %v, told %d times", err, told)
		}
	})
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

// TestServeOnBoundsBodies has a client take the only connection with a request whose body never comes.
func TestServeOnBoundsBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{clients: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		ok := observe.Check(func() error { return nil })
		go func() { ended <- observe.ServeOn(ctx, l, ok, 1) }()
		slow := l.dial()
		defer slow.Close()
		io.WriteString(slow, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
		go io.Copy(io.Discard, slow)
		answered := make(chan string, 1)
		go func() {
			next := l.dial()
			defer next.Close()
			io.WriteString(next, "GET / HTTP/1.0\r\n\r\n")
			b, _ := io.ReadAll(next)
			answered <- string(b)
		}()
		select {
		case got := <-answered:
			if !strings.HasSuffix(got, "ok\n") {
				t.Errorf("got %q", got)
			}
		case <-time.After(time.Minute):
			t.Error("one client keeps out all others")
			slow.Close()
			<-answered
		}
		cancel()
		<-ended
	})
}

// pipes is a listener in memory.
type pipes struct {
	clients chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.clients <- server
	return client
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.clients:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
