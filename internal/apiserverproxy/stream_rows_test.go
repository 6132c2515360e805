package apiserverproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// wantsUpgrade asks for a protocol that both sides make up.
func wantsUpgrade(path string) string {
	return simple("GET", path, "Connection: Upgrade", "Upgrade: echo")
}

// switches is a target that takes the upgrade, and then does what it is given.
func switches(after func(net.Conn, *bufio.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		after(conn, buf.Reader)
	}
}

// open sends an upgrade, and returns the connection after a 101.
func (s *stage) open(server *httptest.Server, path string) (*net.TCPConn, *bufio.Reader) {
	s.t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, strings.ReplaceAll(wantsUpgrade(path), "\n", "\r\n")); err != nil {
		s.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("got %v, %v", resp, err)
	}
	return conn.(*net.TCPConn), r
}

func testUpgrade(t *testing.T) {
	s, _ := with(t, switches(func(c net.Conn, r *bufio.Reader) {
		line, _ := r.ReadString('\n')
		fmt.Fprint(c, strings.ToUpper(line))
	}))
	for _, server := range []*httptest.Server{s.original("http://10.1.0.1:80"), s.ours} {
		conn, r := s.open(server, service+"/x")
		fmt.Fprint(conn, "hello\n")
		if got, err := io.ReadAll(r); string(got) != "HELLO\n" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// TestSwitchedHeader is that a 101 sets no cookie, and nothing else, for the whole host.
func TestSwitchedHeader(t *testing.T) {
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"+
			"Set-Cookie: a=b; Path=/\r\nStrict-Transport-Security: max-age=9\r\nSec-WebSocket-Accept: x\r\n\r\n")
	})
	_, ours := ask(wantsUpgrade(service + "/x"))
	h := ours.header
	if ours.code != 101 || h.Get("Set-Cookie") != "a=b; Path="+service || h.Get("Strict-Transport-Security") != "" || h.Get("Sec-WebSocket-Accept") != "x" {
		t.Errorf("got %d, %v", ours.code, h)
	}
}

func testUpgradeQuery(t *testing.T) {
	asked := make(chan string, 2)
	_, ask := with(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.RequestURI
		w.WriteHeader(http.StatusForbidden)
	})
	original, ours := ask(wantsUpgrade(service + "/x?token=y"))
	alike(t, original, ours)
	if theirs, ours := <-asked, <-asked; theirs != "/x" || ours != "/x?token=y" {
		t.Errorf("the original asks for %s, ours for %s", theirs, ours)
	}
}

func testUpgradeRefused(t *testing.T) {
	_, ask := with(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not here", http.StatusForbidden) })
	original, ours := ask(wantsUpgrade(service + "/x"))
	if original.code != 403 || original.body != "not here\n" {
		t.Errorf("the original answers %d %s", original.code, original.body)
	}
	alike(t, original, ours)
}

func testUpgradeIgnored(t *testing.T) {
	for _, code := range []int{200, 204, 302, 307} {
		s, ask := with(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://169.254.169.254/")
			w.WriteHeader(code)
		})
		original, ours := ask(wantsUpgrade(service + "/x"))
		if original.code != 500 || !strings.Contains(original.body, "invalid upgrade response: status code "+fmt.Sprint(code)) {
			t.Errorf("%d: the original answers %d %s", code, original.code, original.body)
		}
		if ours.code != 500 || !strings.Contains(ours.body, "invalid upgrade response: status code "+fmt.Sprint(code)) || ours.header.Get("Location") != "" {
			t.Errorf("%d: ours answers %d %v %s\n%s", code, ours.code, ours.header, ours.body, s.log.String())
		}
	}
}

func testUpgradeH2C(t *testing.T) {
	_, ask := onEcho(t)
	original, ours := ask(simple("GET", service+"/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"))
	if original.code != 500 || ours.code != 200 || strings.Contains(ours.body, "Upgrade") {
		t.Errorf("the original answers %d, ours %d\n%s", original.code, ours.code, ours.body)
	}
}

func testUpgradeUnreachable(t *testing.T) {
	s := newStage(t, oneWeb())
	for _, server := range []*httptest.Server{s.original("http://10.1.0.1:80"), s.ours} {
		a := s.ask(server, wantsUpgrade(service+"/x"))
		if a.code != 500 || !strings.Contains(a.body, "error dialing backend: ") || !strings.Contains(a.body, "connection refused") {
			t.Errorf("got %d %s", a.code, a.body)
		}
	}
}

func testHalfClose(t *testing.T) {
	s, _ := with(t, switches(func(c net.Conn, r *bufio.Reader) {
		all, _ := io.ReadAll(r) // the other side has said all
		fmt.Fprintf(c, "%d bytes", len(all))
	}))
	for _, c := range []struct {
		server *httptest.Server
		want   string
	}{{s.original("http://10.1.0.1:80"), ""}, {s.ours, "5 bytes"}} {
		conn, r := s.open(c.server, service+"/x")
		fmt.Fprint(conn, "hello")
		conn.CloseWrite()
		if got, _ := io.ReadAll(r); string(got) != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func testUnreachable(t *testing.T) {
	s := newStage(t, oneWeb())
	for _, server := range []*httptest.Server{s.original("http://10.1.0.1:80"), s.ours} {
		a := s.ask(server, simple("GET", service+"/x"))
		if a.code != 503 || !strings.Contains(a.body, "error trying to reach service: dial tcp") || !strings.Contains(a.body, "connection refused") || a.header.Get("Retry-After") != "" {
			t.Errorf("got %d %v %s", a.code, a.header, a.body)
		}
	}
}

func testErrorEncodings(t *testing.T) {
	for accept, words := range map[string]string{
		"":                                    `"kind":"Status"`,
		"application/json":                    `"reason":"BadRequest"`,
		"application/yaml":                    "reason: BadRequest",
		"application/vnd.kubernetes.protobuf": "k8s\x00",
		"text/html":                           `"Status"`,
	} {
		equally(t, 400, words, simple("GET", service+"/?dryRun=All", "Accept: "+accept))
	}
}
