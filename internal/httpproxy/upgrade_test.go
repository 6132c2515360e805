package httpproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/httpproxy"
)

const asking = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: "

// switches is a target that changes the protocol, says so as it is told, and hands over the connection.
func switches(answer string, then func(io.ReadWriteCloser, io.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, answer)
		then(conn, rw)
	}
}

func echo(c io.ReadWriteCloser, r io.Reader) { io.Copy(c, r) }

func switching(to string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + to + "\r\nX-Stream: v5\r\n\r\n"
}

// TestUpgrade wants bytes both ways, those that come early included, and an end of each direction of its own.
func TestUpgrade(t *testing.T) {
	for _, c := range []struct{ wanted, got string }{
		{"websocket", "WebSocket"}, {"SPDY/3.1", "SPDY/3.1"}, {"foo, bar", "bar"}, {"anything", "anything"},
	} {
		t.Run(c.wanted, func(t *testing.T) {
			w := newWorld(t, switches(switching(c.got)+"first", echo))
			conn, r := w.dial(t)
			send(t, conn, asking+c.wanted+"\r\n\r\nearly")
			resp := answerTo(t, r, "GET")
			if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != c.got || resp.Header.Get("Connection") != "Upgrade" || resp.Header.Get("X-Stream") != "v5" {
				t.Fatalf("got %s and %v", resp.Status, resp.Header)
			}
			want(t, r, "firstearly")
			send(t, conn, "more")
			want(t, r, "more")
			if requests, upgrades := w.proxy.Open(); requests != 1 || upgrades != 1 {
				t.Errorf("%d requests and %d upgrades are open", requests, upgrades)
			}
			send(t, conn, "last")
			conn.CloseWrite()
			if rest, err := io.ReadAll(r); string(rest) != "last" || err != nil {
				t.Errorf("got %q and %v at the end", rest, err)
			}
			<-w.cut
			if requests, upgrades := w.proxy.Open(); requests != 0 || upgrades != 0 {
				t.Errorf("%d requests and %d upgrades are open at the end", requests, upgrades)
			}
		})
	}
}

// TestUpgradeEndsOnTheOtherSide has a target that says all before its client does.
func TestUpgradeEndsOnTheOtherSide(t *testing.T) {
	heard := make(chan string, 1)
	w := newWorld(t, switches(switching("x"), func(c io.ReadWriteCloser, r io.Reader) {
		io.WriteString(c, "done")
		c.(interface{ CloseWrite() error }).CloseWrite()
		b, _ := io.ReadAll(r)
		heard <- string(b)
	}))
	conn, r := w.dial(t)
	send(t, conn, asking+"x\r\n\r\n")
	answerTo(t, r, "GET")
	if got, err := io.ReadAll(r); string(got) != "done" || err != nil {
		t.Errorf("got %q and %v", got, err)
	}
	send(t, conn, "thanks")
	conn.CloseWrite()
	if got := <-heard; got != "thanks" {
		t.Errorf("the target heard %q", got)
	}
}

// TestUpgradeIsRefused wants what the target says instead to reach the client as it is, and the connection to go on.
func TestUpgradeIsRefused(t *testing.T) {
	for _, code := range []int{200, 302, 400, 403, 426, 500} {
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(code)
			fmt.Fprint(rw, "no")
		})
		conn, r := w.dial(t)
		for range 2 {
			send(t, conn, asking+"websocket\r\n\r\n")
			resp := answerTo(t, r, "GET")
			if got, err := io.ReadAll(resp.Body); resp.StatusCode != code || string(got) != "no" || err != nil {
				t.Errorf("got %s, %q and %v, want %d", resp.Status, got, err, code)
			}
		}
	}
}

// TestUpgradeCannotBe has the reasons of the proxy's own.
func TestUpgradeCannotBe(t *testing.T) {
	for _, c := range []struct {
		name, wanted string
		target       http.HandlerFunc
		option       func(*world)
		code, text   string
	}{
		{"another protocol", "websocket", switches(switching("other"), echo), func(*world) {}, "502", `changed the protocol to \"other\", but \"websocket\"`},
		{"no protocol", "websocket", switches("HTTP/1.1 101 Switching Protocols\r\n\r\n", echo), func(*world) {}, "502", `changed the protocol to \"\"`},
		{"too many", "websocket", switches(switching("websocket"), echo), func(w *world) { w.config.MaxUpgrades = -1 }, "503", "which is as many as may be"},
		{"nothing listens", "websocket", nil, func(w *world) { w.to.Name, w.to.Host = "the API server", "127.0.0.1:1" }, "502", "cannot reach the API server: connection refused"},
	} {
		w := newWorld(t, c.target, c.option)
		got := w.ask(t, strings.Replace(asking, "keep-alive", "close", 1)+c.wanted+"\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.code+" ") || !strings.Contains(got, c.text) || !strings.Contains(got, `"kind":"Status"`) {
			t.Errorf("%s: got %q", c.name, got)
		}
	}
}

// TestUpgradeIsNotAskedOfOthers has targets without, and a 101 that nobody has asked for.
func TestUpgradeIsNotAskedOfOthers(t *testing.T) {
	w := newWorld(t, switches(switching("websocket"), echo))
	got := w.ask(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUpgrade: websocket\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 502 ") {
		t.Errorf("unasked: got %q", got)
	}
	w.to.Upgrade = nil
	if got = w.ask(t, strings.Replace(asking, "keep-alive", "close", 1)+"websocket\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 501 ") {
		t.Errorf("not offered: got %q", got)
	}
}

// TestUpgradeOfHTTP2 has a connection that many requests share.
func TestUpgradeOfHTTP2(t *testing.T) {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	r.Header = http.Header{"Connection": {"upgrade"}, "Upgrade": {"websocket"}}
	p := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
	p.Serve(w, r, httpproxy.Target{Scheme: "http", Host: "a", Upgrade: failing{}})
	if w.Code != 501 || !strings.Contains(w.Body.String(), "send the request over HTTP/1.1") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// TestUpgradeBreaks wants an early end of one side to look like one to the other.
func TestUpgradeBreaks(t *testing.T) {
	heard := make(chan error, 1)
	w := newWorld(t, switches(switching("x"), func(_ io.ReadWriteCloser, r io.Reader) {
		_, err := io.ReadAll(r)
		heard <- err
	}))
	conn, r := w.dial(t)
	send(t, conn, asking+"x\r\n\r\n")
	answerTo(t, r, "GET")
	conn.SetLinger(0)
	conn.Close()
	if err := <-heard; err == nil {
		t.Error("the target takes the reset for an orderly end")
	}
}

// TestDrain wants watches to end now and in order, upgrades to go on until they end or time is up, and nothing new.
func TestDrain(t *testing.T) {
	slow := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/x":
			switches(switching("x"), echo)(rw, r)
		case "/watch":
			fmt.Fprint(rw, "event\n")
			rw.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			rw.(http.Flusher).Flush()
			select {
			case <-slow:
			case <-r.Context().Done():
			}
			fmt.Fprint(rw, "slow")
		}
	}, func(w *world) {
		w.edit = func(r *http.Request) *http.Request {
			if r.URL.Path == "/watch" {
				return httpproxy.LongRunning(r)
			}
			return r
		}
	})
	upgraded, fromUpgraded := w.dial(t)
	send(t, upgraded, asking+"x\r\n\r\n")
	answerTo(t, fromUpgraded, "GET")
	watch, err := http.Get(w.front.URL + "/watch")
	if err != nil {
		t.Fatal(err)
	}
	want(t, watch.Body, "event\n")
	ordinary, err := http.Get(w.front.URL + "/slow")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error, 1)
	go func() { drained <- w.proxy.Drain(ctx) }()
	if rest, err := io.ReadAll(watch.Body); len(rest) > 0 || err != nil {
		t.Errorf("the watch ends with %q and %v", rest, err)
	}
	if got := w.ask(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "\r\nRetry-After: 1\r\n") {
		t.Errorf("got %q", got)
	}
	send(t, upgraded, "still here")
	want(t, fromUpgraded, "still here")
	close(slow)
	if got, err := io.ReadAll(ordinary.Body); string(got) != "slow" || err != nil {
		t.Errorf("got %q and %v", got, err)
	}
	select {
	case err := <-drained:
		t.Fatalf("Drain returned %v", err)
	default:
	}
	cancel()
	if err := <-drained; err == nil || !strings.Contains(err.Error(), "1 requests had not ended and were cut, 1 of them upgraded") {
		t.Errorf("Drain returned %v", err)
	}
	if _, err := io.ReadAll(fromUpgraded); err == nil {
		t.Error("the upgraded connection seems to have ended in order")
	}
	if err := w.proxy.Drain(t.Context()); err != nil {
		t.Errorf("Drain again: %v", err)
	}
}

// TestDrainCutsWhatHasALength has a long-running answer that cannot end in order, since it has said how long it is.
func TestDrainCutsWhatHasALength(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", "100")
		fmt.Fprint(rw, "half")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	}, func(w *world) { w.edit = httpproxy.LongRunning })
	resp, err := http.Get(w.front.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.proxy.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(resp.Body); string(got) != "half" || err == nil {
		t.Errorf("got %q and %v, want half and an error", got, err)
	}
	if err := <-w.cut; !errors.Is(err, http.ErrAbortHandler) {
		t.Errorf("Serve ended with %v", err)
	}
}

// TestDrainCuts has requests that do not end: one with half an answer, one without any.
func TestDrainCuts(t *testing.T) {
	asked := make(chan struct{}, 1)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		if r.URL.Path == "/half" {
			fmt.Fprint(rw, "half")
			rw.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	none, fromNone := w.dial(t)
	send(t, none, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	half, err := http.Get(w.front.URL + "/half")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := w.proxy.Drain(ctx); err == nil {
		t.Error("Drain found nothing to cut")
	}
	if got, err := io.ReadAll(half.Body); string(got) != "half" || err == nil {
		t.Errorf("got %q and %v, want half and an error", got, err)
	}
	if resp := answerTo(t, fromNone, "GET"); resp.StatusCode != 503 {
		t.Errorf("got %s", resp.Status)
	}
}

// TestDrainCutsUploads has a client that has stopped in the middle of a body.
func TestDrainCutsUploads(t *testing.T) {
	asked := make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		io.Copy(io.Discard, r.Body)
	}, func(w *world) { w.config.BodyTimeout = -1 })
	conn, r := w.dial(t)
	send(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.proxy.Drain(ctx); err == nil {
		t.Error("Drain found nothing to cut")
	}
	if resp := answerTo(t, r, "POST"); resp.StatusCode != 503 || !resp.Close {
		t.Errorf("got %s, and close is %v", resp.Status, resp.Close)
	}
}
