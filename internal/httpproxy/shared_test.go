package httpproxy_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"

	"varco.dev/internal/httpproxy"
)

// TestSharedConnectionBreaks has one connection of HTTP/2 to the target break under several requests whose clients are silent
// in the middle of their bodies. All of them are told, not only the one that came last.
func TestSharedConnectionBreaks(t *testing.T) {
	arrived := make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 5))
		arrived <- struct{}{}
		<-r.Context().Done()
	}, func(w *world) { w.h2 = true })
	conns := make(chan net.Conn, 10)
	w.to.RoundTripper.(*http.Transport).DialContext = httpproxy.BufferDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		conns <- c
		return c, err
	})
	const clients = 4
	ask := "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"
	answers := make(chan *http.Response, clients)
	for range clients {
		conn, r := w.dial(t)
		send(t, conn, ask)
		<-arrived
		go func() {
			resp, _ := http.ReadResponse(r, nil) // fails after some time
			answers <- resp
		}()
	}
	if len(conns) != 1 {
		t.Fatalf("there are %d connections to the target", len(conns))
	}
	(<-conns).Close()
	for range clients {
		if resp := <-answers; resp == nil || resp.StatusCode != http.StatusBadGateway {
			t.Errorf("got %v, want 502", resp)
		}
	}
}

// roundTripper is a function that is a http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestFormerConnectionBreaks has a request that went to another connection, which other requests of HTTP/2 have kept open. When
// that one ends, the request goes on.
func TestFormerConnectionBreaks(t *testing.T) {
	connection := func() net.Conn {
		c, other := net.Pipe()
		t.Cleanup(func() { other.Close() })
		return buffered(t, c)
	}
	rt := func(r *http.Request) (*http.Response, error) {
		former := connection()
		got := httptrace.ContextClientTrace(r.Context()).GotConn
		got(httptrace.GotConnInfo{Conn: former})
		got(httptrace.GotConnInfo{Conn: connection()})
		if _, err := io.ReadFull(r.Body, make([]byte, 5)); err != nil {
			return nil, err
		}
		former.Close()
		_, err := io.Copy(io.Discard, r.Body)
		return &http.Response{StatusCode: 200, Body: http.NoBody}, err
	}
	proxy := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.Serve(w, r, httpproxy.Target{Scheme: "http", Host: "target", RoundTripper: roundTripper(rt)})
	}))
	t.Cleanup(front.Close)
	resp, err := front.Client().Post(front.URL, "", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
}

// closes is a body that tells when it is closed.
type closes struct {
	io.Reader
	closed bool
}

func (c *closes) Close() error { c.closed = true; return nil }

// TestAnswerIsClosed wants an answer that is not passed on to be closed, or its connection would be lost.
func TestAnswerIsClosed(t *testing.T) {
	for name, edit := range map[string]func(*http.Response) error{
		"error": func(*http.Response) error { return errors.New("odd") },
		"panic": func(*http.Response) error { panic(http.ErrAbortHandler) },
	} {
		body := &closes{Reader: strings.NewReader("x")}
		answer := func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: body, ContentLength: 1}, nil
		}
		proxy := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
		func() {
			defer func() { _ = recover() }()
			proxy.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), httpproxy.Target{Scheme: "http", Host: "target", RoundTripper: roundTripper(answer), EditResponse: edit})
		}()
		if requests, _ := proxy.Open(); !body.closed || requests != 0 {
			t.Errorf("%s: closed is %v, and %d requests are open", name, body.closed, requests)
		}
	}
}
