package echo_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gorilla/websocket"
	"varco.dev/lab/internal/echo"
)

var me = echo.Identity{Pod: "echo-1", Node: "node-1"}

// start serves on free loopback ports until the test ends.
func start(t *testing.T) *echo.Server {
	t.Helper()
	s, stop := startStoppable(t, echo.Config{})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startStoppable serves on free loopback ports; stop ends it and waits for its end.
func startStoppable(t *testing.T, cfg echo.Config) (s *echo.Server, stop func() error) {
	t.Helper()
	const free = "127.0.0.1:0"
	cfg.Identity, cfg.Log = me, slog.New(slog.NewTextHandler(t.Output(), nil))
	cfg.HTTP, cfg.HTTPS, cfg.H2C, cfg.TCP, cfg.UDP = free, free, free, free, "[::]:0"
	s, err := echo.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() error {
		cancel()
		return <-done
	}
}

// client trusts the self-signed certificate and connects anew for each request.
func client(protocols ...func(*http.Protocols)) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	if len(protocols) > 0 {
		tr.Protocols, tr.DisableKeepAlives = new(http.Protocols), false
		for _, p := range protocols {
			p(tr.Protocols)
		}
	}
	return &http.Client{
		Transport:     tr,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestIdentityOverHTTP(t *testing.T) {
	s := start(t)
	h2c := func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }
	h2 := func(p *http.Protocols) { p.SetHTTP2(true) }
	for _, tc := range []struct {
		name, scheme, protocol, path, proto string
		client                              *http.Client
	}{
		{"HTTP/1.1", "http", "http", "/", "HTTP/1.1", client()},
		{"raw path", "http", "http", "/a//b/../%2f?x=%20", "HTTP/1.1", client()},
		{"HTTPS", "https", "https", "/", "HTTP/1.1", client()},
		{"HTTPS with HTTP/2", "https", "https", "/", "HTTP/2.0", client(h2)},
		{"h2c", "http", "h2c", "/x", "HTTP/2.0", client(h2c)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := s.Addr(tc.protocol).String()
			resp, body := get(t, tc.client, tc.scheme+"://"+addr+tc.path)
			var got echo.Reply
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v in %q", err, body)
			}
			want := echo.Reply{
				Pod: me.Pod, Node: me.Node, Method: "GET", Host: addr, Path: tc.path, Proto: tc.proto,
			}
			ignore := cmpopts.IgnoreFields(echo.Reply{}, "Client", "Headers")
			if diff := cmp.Diff(want, got, ignore); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(got.Client, "127.0.0.1:") || resp.Header.Get("X-Client") != got.Client {
				t.Errorf("client = %q, header %q", got.Client, resp.Header.Get("X-Client"))
			}
			if resp.Header.Get("X-Pod") != me.Pod {
				t.Errorf("X-Pod = %q", resp.Header.Get("X-Pod"))
			}
		})
	}
}

func TestPaths(t *testing.T) {
	s := start(t)
	base := "http://" + s.Addr("http").String()
	for _, tc := range []struct {
		path   string
		status int
		length int // of the body, -1 for any
	}{
		{"/healthz", 200, 3},
		{"/readyz", 200, 3},
		{"/bytes?n=3000000", 200, 3000000},
		{"/bytes?n=0", 200, 0},
		{"/bytes?n=-1", 400, -1},
		{"/bytes?n=x", 400, -1},
		{"/slow?delay=50ms&bytes=105", 200, 105},
		{"/slow?delay=soon", 400, -1},
		{"/events?interval=x", 400, -1},
		{"/status/418", 418, 0},
		{"/status/20", 400, -1},
		{"/status/", 400, -1},
		{"/redirect", 400, -1},
		{"/redirect?to=/x", 302, 0},
		{"/upload", 405, -1},
		{"/ws", 400, -1},
	} {
		t.Run(tc.path, func(t *testing.T) {
			resp, body := get(t, client(), base+tc.path)
			if resp.StatusCode != tc.status || tc.length >= 0 && len(body) != tc.length {
				t.Errorf("got status %d and %d bytes, want %d and %d", resp.StatusCode, len(body), tc.status, tc.length)
			}
		})
	}
}

func TestSlowTakesItsTime(t *testing.T) {
	s := start(t)
	begin := time.Now()
	get(t, client(), "http://"+s.Addr("http").String()+"/slow?delay=300ms&bytes=10")
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("took %s", took)
	}
}

func TestReadinessCanBeSwitched(t *testing.T) {
	s := start(t)
	url := "http://" + s.Addr("http").String() + "/readyz"
	for _, step := range []struct {
		ready  string
		status int
	}{{"false", 503}, {"true", 200}} {
		req, _ := http.NewRequest(http.MethodPut, url+"?ready="+step.ready, nil)
		resp, err := client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp, _ := get(t, client(), url); resp.StatusCode != step.status {
			t.Errorf("after ready=%s: status %d, want %d", step.ready, resp.StatusCode, step.status)
		}
	}
}

func TestUpload(t *testing.T) {
	s := start(t)
	body := strings.Repeat("0123456789", 300000)
	resp, err := client().Post("http://"+s.Addr("http").String()+"/upload", "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got echo.Upload
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(body))
	want := echo.Upload{Pod: me.Pod, Bytes: int64(len(body)), SHA256: hex.EncodeToString(sum[:])}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("upload (-want +got):\n%s", diff)
	}
}

func TestEvents(t *testing.T) {
	s := start(t)
	_, body := get(t, client(), "http://"+s.Addr("http").String()+"/events?interval=1ms&count=3")
	if n := strings.Count(body, "data: pod=echo-1 node=node-1 client=127.0.0.1:"); n != 3 {
		t.Errorf("got %d events in %q", n, body)
	}
}

func TestWebSocket(t *testing.T) {
	s := start(t)
	c, _, err := websocket.DefaultDialer.Dial("ws://"+s.Addr("http").String()+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, hello, err := c.ReadMessage(); err != nil || !strings.HasPrefix(string(hello), "pod=echo-1 node=node-1") {
		t.Fatalf("greeting %q, %v", hello, err)
	}
	for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
		if err := c.WriteMessage(kind, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got, b, err := c.ReadMessage(); err != nil || got != kind || string(b) != "hello" {
			t.Errorf("got type %d %q, %v", got, b, err)
		}
	}
}

func TestTCPGreetsEchoesAndHalfCloses(t *testing.T) {
	s := start(t)
	conn, err := net.Dial("tcp", s.Addr("tcp").String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	want := fmt.Sprintf("pod=echo-1 node=node-1 client=%s\n", conn.LocalAddr())
	if got, err := in.ReadString('\n'); err != nil || got != want {
		t.Fatalf("greeting %q, %v, want %q", got, err, want)
	}
	io.WriteString(conn, "half ")
	io.WriteString(conn, "closed")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(in); err != nil || string(got) != "half closed" {
		t.Errorf("echo %q, %v", got, err)
	}
}

func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	s := start(t)
	port := s.Addr("udp").(*net.UDPAddr).Port
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		conn, err := net.Dial("udp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprint(conn, "payload")
		// A connected socket takes answers from the address alone that it asked.
		b := make([]byte, 1000)
		n, err := conn.Read(b)
		want := fmt.Sprintf("pod=echo-1 node=node-1 client=%s\npayload", conn.LocalAddr())
		if err != nil || string(b[:n]) != want {
			t.Errorf("from %s: got %q, %v, want %q", host, b[:n], err, want)
		}
	}
}
