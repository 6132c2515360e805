package origin_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"

	"varco.dev/internal/kubectlproxy/origin"
)

// TestCut cuts the tunnel between requests: the next one opens another.
func TestCut(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", mirror)
	client := s.client()
	for range 5 {
		if resp, text := s.do(client, "GET", "80.web.shop.svc.localhost", "/", nil); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, text)
		}
		s.cut()
	}
	if n := s.counted("portforward"); n != 5 {
		t.Errorf("%d tunnels, want 5", n)
	}
}

// TestCutWhileAsked cuts the tunnel when the app has got the request: a GET is asked again, a POST is not.
func TestCutWhileAsked(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	var asked atomic.Int32
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			s.cut()
		}
		fmt.Fprint(w, "answer")
	}))
	if resp, text := s.get("80.web.shop.svc.localhost", "/"); resp.StatusCode != 200 || text != "answer" || asked.Load() != 2 {
		t.Errorf("GET: %d %s after %d tries", resp.StatusCode, text, asked.Load())
	}
	asked.Store(0)
	resp, text := s.do(s.client(), "POST", "80.web.shop.svc.localhost", "/", strings.NewReader("order"))
	if resp.StatusCode != 502 || !strings.Contains(text, "tunnel") || asked.Load() != 1 {
		t.Errorf("POST: %d %s after %d tries, want 502 after one", resp.StatusCode, text, asked.Load())
	}
}

// TestCutAnswer cuts the tunnel, or its connections, in the middle of an answer without a length: it must not look
// complete.
func TestCutAnswer(t *testing.T) {
	for i, proto := range []string{"HTTP/1.1", "HTTP/1.0", "HTTP/1.1", "HTTP/1.0"} {
		s := newStage(t, origin.ModeAuto)
		s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			defer conn.Close()
			fmt.Fprintf(conn, "%s 200 OK\r\nContent-Type: text/plain\r\n\r\nbeginning", proto) // until the end of the connection
			<-r.Context().Done()
		}))
		resp, err := s.client().Get("http://80.web.shop.svc.localhost" + s.port() + "/")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 9)
		if _, err := io.ReadFull(resp.Body, got); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			s.cut()
		} else {
			s.reset()
		}
		if rest, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: the answer ended after %q and %q as if it were complete", proto, got, rest)
		}
		resp.Body.Close()
	}
}

// TestEndedAnswer is its opposite: an answer that ends with the connection, in order.
func TestEndedAnswer(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
	}))
	for range 20 {
		if _, got := s.get("80.web.shop.svc.localhost", "/"); got != "all of it" {
			t.Fatalf("got %q", got)
		}
	}
}

// TestDeadEndpoint has one of two pods without a listener: requests go to the other.
func TestDeadEndpoint(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", mirror)
	s.pod("web-1", 8080, "")
	s.service("web", corev1.ServicePort{Port: 80}, "web-0", "web-1", "web-gone")
	for range 20 {
		if resp, text := s.get("80.web.shop.svc.localhost", "/"); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, text)
		}
	}
}

func TestSticky(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	for i := range 4 {
		name := fmt.Sprintf("web-%d", i)
		s.pod(name, 8080, s.app(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })))
	}
	s.service("web", corev1.ServicePort{Port: 80}, "web-0", "web-1", "web-2", "web-3")
	visited := func() map[string]bool {
		names := map[string]bool{}
		for range 40 {
			_, got := s.get("80.web.shop.svc.localhost", "/")
			names[got] = true
		}
		return names
	}
	if got := visited(); len(got) < 2 {
		t.Errorf("40 requests went to %v", got)
	}
	s.service("sticky", corev1.ServicePort{Port: 80}, "web-0", "web-1", "web-2", "web-3")
	s.services["shop/sticky"].Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	names := map[string]bool{}
	for range 40 {
		_, got := s.get("80.sticky.shop.svc.localhost", "/")
		names[got] = true
	}
	if len(names) != 1 {
		t.Errorf("40 requests of one client went to %v", names)
	}
}

// TestSlowClient has a client that stops reading: others are served meanwhile, and it gets all in the end.
func TestSlowClient(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	big := bytes.Repeat([]byte("0123456789abcdef"), 4<<20) // 64 MiB: more than all buffers on the way together
	var sent atomic.Int64
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for rest := big; r.URL.Path == "/big" && len(rest) > 0; rest = rest[32<<10:] {
			w.Write(rest[:32<<10])
			sent.Add(32 << 10)
		}
	}))
	resp, err := s.client().Get("http://80.web.shop.svc.localhost" + s.port() + "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for before := int64(-1); before != sent.Load(); {
		before = sent.Load()
		time.Sleep(200 * time.Millisecond) // that nothing moves any more is no event
	}
	for range 50 {
		if resp, _ := s.get("80.web.shop.svc.localhost", "/small"); resp.StatusCode != 200 {
			t.Fatalf("beside a slow client: %d", resp.StatusCode)
		}
	}
	if n := s.counted("portforward"); n > origin.TunnelsPerPod {
		t.Errorf("%d tunnels to one pod", n)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes of %d, %v", len(got), len(big), err)
	}
}

// TestStuckUpload has an app that does not read a request: others are served meanwhile, and the request can be cut.
func TestStuckUpload(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	free := make(chan struct{})
	defer close(free)
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			<-free
		}
	}))
	body := &counted{}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://80.web.shop.svc.localhost"+s.port()+"/", body)
	client := s.client()
	client.Timeout = 0
	go client.Do(req)
	for before := int64(-1); before != body.sent.Load() || before == 0; {
		before = body.sent.Load()
		time.Sleep(200 * time.Millisecond) // that nothing moves any more is no event
	}
	start := time.Now()
	for range 10 {
		if resp, text := s.get("80.web.shop.svc.localhost", "/"); resp.StatusCode != 200 {
			t.Fatalf("beside a stuck upload: %d %s", resp.StatusCode, text)
		}
	}
	if took := time.Since(start); took > 5*origin.StuckTimeout {
		t.Errorf("beside a stuck upload, ten requests took %v", took)
	}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	start = time.Now()
	_ = s.pass.Drain(now) // how many requests it has cut
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the upload was cut after %v", took)
	}
}

// counted is an endless body.
type counted struct{ sent atomic.Int64 }

func (c *counted) Read(p []byte) (int, error) { c.sent.Add(int64(len(p))); return len(p), nil }

// TestHalfClose ends one direction of an upgraded connection; the other goes on.
func TestHalfClose(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, read, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
		text, _ := io.ReadAll(read)
		fmt.Fprintf(conn, "got %s", text)
	}))
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: 80.web.shop.svc.localhost\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\nsome")
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(answer, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	fmt.Fprint(conn, " words")
	conn.(*net.TCPConn).CloseWrite() // earlier, net/http would think that the client is gone
	if all, err := io.ReadAll(answer); err != nil || string(all) != "got some words" {
		t.Errorf("%q, %v", all, err)
	}
}

// TestGoroutines checks that nothing is left after the end, with all kinds of connections open until then.
func TestGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("stage", func(t *testing.T) {
		s := newStage(t, origin.ModeAuto)
		s.web("web", mirror)
		s.web("chat", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
			if err == nil {
				defer conn.Close()
				conn.ReadMessage()
			}
		}))
		s.web("h2", mirror, func(app *httptest.Server) {
			app.Config.Protocols = new(http.Protocols)
			app.Config.Protocols.SetUnencryptedHTTP2(true)
		})
		h2c := "kubernetes.io/h2c"
		s.services["shop/h2"].Spec.Ports[0].AppProtocol = &h2c
		for range 10 {
			s.get("80.web.shop.svc.localhost", "/")
			if _, got := s.get("80.h2.shop.svc.localhost", "/"); !strings.Contains(got, "proto=HTTP/2.0") {
				t.Errorf("h2c: %s", got)
			}
		}
		dialer := websocket.Dialer{NetDialContext: s.dial}
		conn, _, err := dialer.Dial("ws://80.chat.shop.svc.localhost"+s.port()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	})
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond) // there is no event for the end of net/http's goroutines
	}
	if n := runtime.NumGoroutine(); n > before {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, n, stacks[:runtime.Stack(stacks, true)])
	}
}
