package httpproxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/httpproxy"
)

// pipes is a listener whose connections are in memory, so that synctest's clock is all that time is.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours, nil
}

// serveIn serves on pipes until the test ends, with the limits on time that a careful server has.
func serveIn(h http.HandlerFunc) (*pipes, *http.Server) {
	l := newPipes()
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go s.Serve(l)
	return l, s
}

// TestADay has a watch and an upgraded connection say nothing for a day, and a word then.
func TestADay(t *testing.T) {
	for name, request := range map[string]string{
		"a watch":    "GET /watch HTTP/1.1\r\nHost: a\r\n\r\n",
		"an upload":  "POST /watch HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
		"an upgrade": asking + "x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { aDay(t, request) }) })
	}
}

func aDay(t *testing.T, request string) {
	const day = 24 * time.Hour
	back, target := serveIn(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			switches(switching("x"), func(c io.ReadWriteCloser, _ io.Reader) {
				<-time.After(day)
				io.WriteString(c, "word")
				<-time.After(day)
				io.WriteString(c, "word")
			})(w, r)
			return
		}
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		for range 2 {
			w.(http.Flusher).Flush()
			<-time.After(day)
			fmt.Fprint(w, "word")
		}
	})
	tr := &http.Transport{DialContext: httpproxy.BufferDial(back.dial)}
	p := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
	front, server := serveIn(func(w http.ResponseWriter, r *http.Request) {
		p.Serve(w, r, httpproxy.Target{Scheme: "http", Host: "a", RoundTripper: tr, Upgrade: tr})
	})
	defer target.Close()
	defer server.Close()
	defer tr.CloseIdleConnections()
	c, _ := front.dial(t.Context(), "", "")
	defer c.Close()
	go io.WriteString(c, request)
	r := bufio.NewReader(c)
	resp := answerTo(t, r, "GET")
	body := io.Reader(resp.Body)
	if resp.StatusCode == 101 {
		body = r
	}
	began := time.Now()
	want(t, body, "word")
	want(t, body, "word")
	if took := time.Since(began); took < 2*day {
		t.Errorf("it took %v", took)
	}
	if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil && resp.StatusCode != 101 {
		t.Errorf("got %q and %v at the end", rest, err)
	}
}

// TestErrorsAreNotHeldBack has a client that stops in the middle of a body, and wants its error at once all the same.
func TestErrorsAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
		front, server := serveIn(func(w http.ResponseWriter, r *http.Request) {
			p.Serve(w, r, httpproxy.Target{Scheme: "http", Host: "a", RoundTripper: failing{io.EOF}})
		})
		defer server.Close()
		c, _ := front.dial(t.Context(), "", "")
		defer c.Close()
		go io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
		began := time.Now()
		if resp := answerTo(t, bufio.NewReader(c), "POST"); resp.StatusCode != 502 || !resp.Close || time.Since(began) > 0 {
			t.Errorf("got %s after %v, and close is %v", resp.Status, time.Since(began), resp.Close)
		}
	})
}
