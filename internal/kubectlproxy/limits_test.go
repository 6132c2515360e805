package kubectlproxy_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// silent checks that nothing comes for so long.
func (w *wire) silent(t *testing.T, who string) {
	t.Helper()
	w.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if b, err := w.in.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %q and %v, where nothing should come: has it changed?", who, b, err)
	}
	w.SetReadDeadline(time.Now().Add(patience))
}

func testHeaderLimit(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.MaxHeaderBytes = 64 << 10 })
	fits, large := get("/", "X: "+strings.Repeat("x", 32<<10)), get("/", "X: "+strings.Repeat("x", 128<<10))
	s.expect(fits, "200 GET /", "200 GET /")
	s.expect(large, "200 GET /", "431 431 Request Header Fields Too Large")
	huge := get("/", "X: "+strings.Repeat("x", 1<<20+8<<10))
	if got := s.original.send(t, huge).Code; got != 431 {
		t.Errorf("kubectl proxy answers a header of more than 1 MiB with %d: has it changed?", got)
	}
}

func testHeaderTimeout(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.HeaderTimeout = 200 * time.Millisecond })
	const half = "GET / HTTP/1.1\r\nHost: localhost\r\n"
	s.original.open(t, half).silent(t, "kubectl proxy")
	if b, err := io.ReadAll(s.ours.open(t, half)); err != nil || len(b) > 0 && !strings.Contains(string(b), "408") {
		t.Errorf("half a header brings %q and %v, want the end", b, err)
	}
}

func testBodyLimit(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.MaxBodyBytes = 1 << 10 })
	large := strings.Repeat("x", 64<<10)
	s.expect(request("POST", "/api/v1/pods", large), "200 POST /api/v1/pods", "413 Status RequestEntityTooLarge")
	chunked := request("POST", "/api/v1/pods", "", "Transfer-Encoding: chunked") + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large)
	s.expect(chunked, "200 POST /api/v1/pods", "413 Status RequestEntityTooLarge")
	s.expect(post("/api/v1/pods"), "200 POST /api/v1/pods", "200 POST /api/v1/pods")
	// What goes to an application is not for the API server to store.
	const app = "/api/v1/namespaces/d/services/s/proxy/upload"
	s.expect(request("POST", app, large), "200 POST "+app, "200 POST "+app)
}

func testBodyTimeout(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.BodyTimeout = 200 * time.Millisecond })
	part := request("POST", "/api/v1/pods", "", "Content-Length: 100") + "part"
	s.original.open(t, part).silent(t, "kubectl proxy")
	if got := s.ours.open(t, part).answer(t); got.String() != "408 Status Timeout" {
		t.Errorf("half a body brings %v", got)
	}
}

func testConnectionLimit(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.MaxConnections = 1 })
	first, theirs := s.ours.open(t, get("/")), s.original.open(t, get("/"))
	for _, w := range []*wire{first, theirs} {
		if got := w.answer(t); got.Code != 200 {
			t.Fatal(got)
		}
	}
	if got := s.original.send(t, get("/")); got.Code != 200 {
		t.Errorf("kubectl proxy answers a second connection with %v: has it changed?", got)
	}
	second := s.ours.open(t, get("/"))
	second.silent(t, "a connection beyond the limit")
	first.Close()
	if got := second.answer(t); got.Code != 200 {
		t.Errorf("once there is room: %v", got)
	}
}

func testConnect(t *testing.T) {
	s := newStage(t)
	for _, host := range []string{"localhost", "192.0.2.1:443"} {
		raw := request("CONNECT", "192.0.2.1:443", "", "Host: "+host)
		s.expect(raw, notFound, oursNo)
	}
	s.api.untouched(t)
}

// testLongAnswers is about the listener's timeouts; that nothing behind it ends a watch of 24 hours is in httpproxy.
func testLongAnswers(t *testing.T) {
	s := newStage(t, func(s *stage) {
		s.config.HeaderTimeout, s.config.IdleTimeout, s.config.BodyTimeout = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	})
	events := make(chan string)
	s.api.answers(watches(events))
	w := s.ours.open(t, get(watchPods))
	body := w.header(t).Body
	w.silent(t, "a quiet watch")
	events <- "late"
	if got := line(body); got != "late" {
		t.Errorf("%q", got)
	}
}

func testMethods(t *testing.T) {
	s := newStage(t)
	s.api.answers(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %d %s", r.Method, r.ContentLength, body)
	})
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		with, without := fmt.Sprintf("202 %s 4 body", method), fmt.Sprintf("202 %s 0", method)
		s.expect(request(method, "/api/v1/pods", "body"), with, with)
		s.expect(request(method, "/api/v1/pods", ""), without, without)
	}
	s.expect(request("HEAD", "/api/v1/pods", ""), "202 ", "202 ")
	chunked := request("POST", "/api/v1/pods", "", "Transfer-Encoding: chunked") + "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
	s.expect(chunked, "202 POST -1 body", "202 POST -1 body")
}

func testCut(t *testing.T) {
	s := newStage(t)
	for _, length := range []string{"100", ""} {
		s.api.answers(func(w http.ResponseWriter, _ *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			io.WriteString(w, "part")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		// What has come before may be lost there.
		if got := s.original.send(t, get("/api/v1/pods")); got.Err == nil {
			t.Errorf("kubectl proxy makes a whole of a part, %v: has it changed?", got)
		}
		if got := s.ours.send(t, get("/api/v1/pods")); got.String() != "200 and then unexpected EOF" || got.Body != "part" {
			t.Errorf("got %v with %q", got, got.Body)
		}
	}
}

func testIdle(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.IdleTimeout = 200 * time.Millisecond })
	theirs, ours := s.original.open(t, get("/")), s.ours.open(t, get("/"))
	for _, w := range []*wire{theirs, ours} {
		if got := w.answer(t); got.Code != http.StatusOK {
			t.Fatal(got)
		}
	}
	if _, err := ours.in.ReadByte(); err != io.EOF {
		t.Errorf("our idle connection: %v, want its end", err)
	}
	theirs.silent(t, "kubectl proxy")
}
