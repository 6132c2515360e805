package cluster_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"varco.dev/internal/httpproxy"
)

// front serves a stage as the proxy does.
func front(t *testing.T, s *stage) *httptest.Server {
	p := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
	f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.clusters.Get("")
		if err != nil {
			httpproxy.Fail(w, r, err)
			return
		}
		target, err := c.Target(r, r.URL.Query().Has("watch"))
		if err != nil {
			httpproxy.Fail(w, r, err)
			return
		}
		p.Serve(w, r, target)
	}))
	t.Cleanup(f.Close)
	return f
}

// TestFront sends requests through all of it, each time with a credential that the API server refuses at first.
func TestFront(t *testing.T) {
	a, p := newAPI(t), newPlugin(t)
	s := newStage(t, a, p.user(), func(s *stage) { s.file.Clusters["main"].Server += "/below" })
	f := front(t, s)
	token := 0
	renew := func() {
		token++
		p.givesToken(fmt.Sprint(token))
		a.accept(fmt.Sprint(token))
	}
	renew()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		for _, body := range []string{"", "small", strings.Repeat("x", 200<<10)} {
			if body != "" && method == http.MethodHead {
				continue
			}
			r, err := http.NewRequest(method, f.URL+"/a%2Fb//c", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			_, sent := a.last()
			want := "HTTP/1.1 " + method + " /below/a%2Fb//c"
			if method == http.MethodHead {
				want = ""
			}
			if err != nil || resp.StatusCode != http.StatusOK || string(got) != want || sent != body {
				t.Errorf("%s with %d bytes: %s, %q, %v; the API server got %d bytes", method, len(body), resp.Status, got, err, len(sent))
			}
			renew()
		}
	}
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	rd := bufio.NewReader(conn)
	resp, err := http.ReadResponse(rd, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	fmt.Fprintf(conn, "hello\n")
	if got := firstLine(t, rd); got != "echo hello\n" {
		t.Errorf("upgrade: %q", got)
	}
	came := 0
	for _, r := range a.requests() {
		if !strings.HasPrefix(r.URL.Path, "/below/") {
			t.Errorf("the API server was asked for %s", r.URL.Path)
		}
		came++
	}
	if want := 2*14 - 1; came != want {
		t.Errorf("%d requests, want %d: all but the first are refused once", came, want)
	}
}
