package kubectlproxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const watchPods = "/api/v1/pods?watch=1"

func testCompression(t *testing.T) {
	s := newStage(t)
	s.api.answers(zips)
	s.expect(get("/"), "200 was zipped", "200 was zipped")
	s.expect(get("/", "Accept-Encoding: identity"), "200 plain", "200 plain")
	asked := get("/", "Accept-Encoding: gzip")
	for _, v := range []server{s.original, s.ours} {
		if got := v.send(t, asked); got.Header.Get("Content-Encoding") != "gzip" || strings.Contains(got.Body, "zipped") {
			t.Errorf("a client that asks for gzip gets %v with %v", got, got.Header)
		}
	}
	s = newStage(t, func(s *stage) { s.file.Clusters["main"].DisableCompression = true })
	s.api.answers(zips)
	s.expect(get("/"), "200 plain", "200 plain")
}

func testWatch(t *testing.T) {
	s := newStage(t)
	for name, v := range map[string]server{"kubectl proxy": s.original, "ours": s.ours} {
		events := make(chan string) // its own: the API server may not know yet that the other has gone
		s.api.answers(watches(events))
		w := v.open(t, get(watchPods))
		body := bufio.NewReader(w.header(t).Body)
		for i := range 5 { // the next event comes only when this one was seen
			want := fmt.Sprintf("event %d", i)
			events <- want
			if got := line(body); got != want {
				t.Fatalf("%s: %q, want %q", name, got, want)
			}
		}
		w.Close()
	}
}

func testWebSocket(t *testing.T) {
	s := newStage(t)
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"v5.channel.k8s.io"}}
	s.api.answers(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, data) != nil {
				return
			}
		}
	})
	for name, v := range map[string]server{"kubectl proxy": s.original, "ours": s.ours} {
		dialer := websocket.Dialer{Subprotocols: []string{"v5.channel.k8s.io"}}
		conn, resp, err := dialer.Dial("ws"+strings.TrimPrefix(v.url(watchPods), "http"), nil)
		if err != nil {
			t.Fatalf("%s: %v, %v", name, err, resp)
		}
		for _, size := range []int{1, 1 << 10, 1 << 20} {
			sent := strings.Repeat("x", size)
			if err := conn.WriteMessage(websocket.BinaryMessage, []byte(sent)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := conn.ReadMessage(); err != nil || string(got) != sent {
				t.Errorf("%s: %d bytes come back as %d, error %v", name, size, len(got), err)
			}
		}
		if got := conn.Subprotocol(); got != "v5.channel.k8s.io" {
			t.Errorf("%s: subprotocol %q", name, got)
		}
		conn.Close()
	}
}

func testSPDY(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.Guard.Allow = []string{"portforward"} })
	s.api.answers(echoes)
	raw := upgrade("/api/v1/namespaces/d/pods/p/portforward", "SPDY/3.1") + "at once\n"
	for name, v := range map[string]server{"kubectl proxy": s.original, "ours": s.ours} {
		w := v.open(t, raw)
		resp := w.header(t)
		if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "SPDY/3.1" {
			t.Fatalf("%s: %v", name, resp)
		}
		if name == "ours" { // there these bytes are lost, and the next line is the first that comes back
			if got := line(w.in); got != "echo at once" {
				t.Errorf("ours: %q", got)
			}
		}
		if got := w.echo("word"); got != "echo word" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func testUpgradeRefused(t *testing.T) {
	s := newStage(t)
	raw := upgrade(watchPods, "websocket")
	for code, original := range map[int]string{
		200: "500 invalid upgrade response: status code 200",
		204: "500 invalid upgrade response: status code 204",
		400: "400 no", 403: "403 no", 503: "503 no",
	} {
		s.api.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(code)
			io.WriteString(w, "no")
		})
		ours := fmt.Sprintf("%d no", code)
		if code == 204 {
			ours = "204 "
		}
		s.expect(raw, original, ours)
	}
}

// forwarder is an HTTP proxy that counts the tunnels it makes.
type forwarder struct {
	*httptest.Server
	tunnels atomic.Int32
}

func newForwarder(t *testing.T) *forwarder {
	f := &forwarder{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.tunnels.Add(1)
		to, err := net.Dial("tcp", r.Host)
		if r.Method != http.MethodConnect || err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer to.Close()
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(to, rw); to.Close() }()
		io.Copy(conn, to)
	}))
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	return f
}

func testProxyURL(t *testing.T) {
	f := newForwarder(t)
	s := newStage(t, func(s *stage) { s.file.Clusters["main"].ProxyURL = f.URL })
	s.expect(get("/api/v1/pods"), passed, passed)
	if got := f.tunnels.Swap(0); got != 2 {
		t.Errorf("%d tunnels for a request through each, want 2", got)
	}
	s.api.answers(echoes)
	for _, c := range []struct {
		name    string
		at      server
		tunnels int32
	}{{"kubectl proxy", s.original, 0}, {"ours", s.ours, 1}} {
		w := c.at.open(t, upgrade(watchPods, "websocket"))
		if resp := w.header(t); resp.StatusCode != 101 || w.echo("word") != "echo word" {
			t.Errorf("%s: no upgrade: %v", c.name, resp)
		}
		if got := f.tunnels.Swap(0); got != c.tunnels {
			t.Errorf("%s: %d tunnels for an upgrade, want %d: has it changed?", c.name, got, c.tunnels)
		}
		w.Close()
	}
}

func testUnreachable(t *testing.T) {
	s := newStage(t)
	s.api.CloseClientConnections()
	s.api.Close()
	raw := get("/api/v1/pods")
	original, ours := s.original.send(t, raw), s.ours.send(t, raw)
	if original.Code != 500 || !strings.HasPrefix(original.Body, "dial tcp") || original.status().Kind != "" {
		t.Errorf("kubectl proxy answers %v: has it changed?", original)
	}
	if got := ours.status(); got.Code != 502 || !strings.Contains(got.Message, "connection refused") || !strings.Contains(got.Message, "API server") {
		t.Errorf("got %v with %+v", ours, got)
	}
	raw = upgrade(watchPods, "websocket")
	if original := s.original.send(t, raw); original.Code != 500 {
		t.Errorf("kubectl proxy answers an upgrade with %v: has it changed?", original)
	}
	if ours := s.ours.send(t, raw); ours.String() != "502 Status BadGateway" {
		t.Errorf("got %v to an upgrade", ours)
	}
}

func testTLSFailure(t *testing.T) {
	s := newStage(t, func(s *stage) { s.file.Clusters["main"].CertificateAuthorityData = selfSigned(t).cert })
	original, ours := s.original.send(t, get("/")), s.ours.send(t, get("/"))
	if original.Code != 500 || !strings.Contains(original.Body, "x509") {
		t.Errorf("kubectl proxy answers %v: has it changed?", original)
	}
	if got := ours.status(); got.Code != 502 || !strings.Contains(got.Message, "certificate") {
		t.Errorf("got %v with %+v", ours, got)
	}
}

func testTimeout(t *testing.T) {
	// An API server that takes connections and never speaks TLS: both wait 10 s for it.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := newStage(t, func(s *stage) { s.file.Clusters["main"].Server = "https://" + silent.Addr().String() })
	type result struct{ original, ours answer }
	answers := make(chan answer, 2)
	for _, v := range []server{s.original, s.ours} {
		w := v.open(t, get("/"))
		w.SetDeadline(time.Now().Add(2 * patience))
		go func() { answers <- w.answer(t) }()
	}
	got := result{<-answers, <-answers}
	if got.original.Code != 500 {
		got.original, got.ours = got.ours, got.original
	}
	if got.original.Code != 500 || !strings.Contains(got.original.Body, "timeout") {
		t.Errorf("kubectl proxy answers %v: has it changed?", got.original)
	}
	if got.ours.String() != "504 Status Timeout" {
		t.Errorf("got %v", got.ours)
	}
}

func testDrainWatch(t *testing.T) {
	s := prepare(t)
	p := startProcess(t, s.path, "--port=0")
	s.startOurs()
	end := func(v server, stop func()) error {
		events := make(chan string)
		s.api.answers(watches(events))
		body := bufio.NewReader(v.open(t, get(watchPods)).header(t).Body)
		events <- "event"
		if got := line(body); got != "event" {
			t.Fatal(got)
		}
		stop()
		rest, err := io.ReadAll(body)
		if len(rest) > 0 {
			t.Errorf("after the end: %q", rest)
		}
		return err
	}
	if err := end(p.server(t), func() { p.end(syscall.SIGTERM) }); err == nil {
		t.Error("kubectl proxy ends a watch in order: has it changed?")
	}
	if err := end(s.ours, func() { go s.stop() }); err != nil {
		t.Errorf("our watch ends with %v, want its proper end", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func testDrainUpgrade(t *testing.T) {
	for _, finishes := range []bool{true, false} {
		s := prepare(t, func(s *stage) {
			if !finishes {
				s.config.DrainTimeout = 200 * time.Millisecond
			} else {
				s.config.DrainTimeout = patience
			}
		})
		s.startOurs()
		s.api.answers(echoes)
		w := s.ours.open(t, upgrade(watchPods, "websocket"))
		if got := w.header(t).StatusCode; got != 101 {
			t.Fatal(got)
		}
		began := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- s.stop() }()
		refusesConnections(t, s.ours)
		if got := w.echo("still"); finishes && got != "echo still" {
			t.Errorf("while it drains: %q", got)
		}
		if finishes {
			w.Close()
		} else if got, err := io.ReadAll(w.in); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("at the end of the drain time: %q, %v", got, err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > patience/2 {
			t.Errorf("took %v", took)
		}
	}
	s := prepare(t)
	s.api.answers(echoes)
	p := startProcess(t, s.path, "--port=0")
	w := p.server(t).open(t, upgrade(watchPods, "websocket"))
	w.header(t)
	p.end(syscall.SIGTERM)
	if got := w.echo("still"); got == "echo still" {
		t.Error("kubectl proxy goes on after SIGTERM: has it changed?")
	}
}

func refusesConnections(t *testing.T, v server) {
	t.Helper()
	eventually(t, "new connections are refused", func() bool {
		conn, err := net.Dial(v.network, v.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

func testDrainRequest(t *testing.T) {
	s := prepare(t)
	p := startProcess(t, s.path, "--port=0")
	arrived := make(chan bool)
	s.api.answers(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-r.Context().Done()
	})
	w := p.server(t).open(t, get("/api/v1/pods"))
	<-arrived
	p.end(syscall.SIGTERM)
	if got := w.answer(t); got.Err == nil {
		t.Errorf("kubectl proxy answers %v after SIGTERM: has it changed?", got)
	}
	for _, finishes := range []bool{true, false} {
		s := prepare(t)
		s.config.DrainTimeout = 300 * time.Millisecond
		if finishes {
			s.config.DrainTimeout = patience
		}
		s.startOurs()
		arrived, gate := make(chan bool), make(chan bool)
		s.api.answers(func(w http.ResponseWriter, r *http.Request) {
			arrived <- true
			<-gate
			io.WriteString(w, "done")
		})
		w := s.ours.open(t, get("/api/v1/pods"))
		<-arrived
		go s.stop()
		refusesConnections(t, s.ours)
		want := "503 Status ServiceUnavailable"
		if finishes {
			want = "200 done"
			close(gate)
		}
		if got := w.answer(t); got.String() != want || !finishes && got.Header.Get("Retry-After") == "" {
			t.Errorf("got %v with %v, want %s", got, got.Header, want)
		}
		if !finishes {
			close(gate)
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}
}

// secure opens a TLS connection and sends bytes.
func (v server) secure(t *testing.T, config *tls.Config, raw string) (*wire, error) {
	t.Helper()
	conn, err := net.Dial(v.network, v.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	secure := tls.Client(conn, config)
	if err := secure.Handshake(); err != nil {
		return nil, err
	}
	return newWire(t, secure, raw), nil
}
