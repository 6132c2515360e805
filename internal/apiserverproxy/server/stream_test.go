package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authnv1 "k8s.io/api/authentication/v1"
)

func (a *api) handleWith(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handle = h
}

// echoUpgrade changes the protocol and returns what it hears, in capitals.
func echoUpgrade(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, strings.ToUpper(line))
	}
}

func TestExecPassesThrough(t *testing.T) {
	s := newStage(t, nil)
	s.api.handleWith(echoUpgrade)
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	for name, c := range map[string]struct {
		certificate *tls.Certificate
		header      string
		want        http.Header
	}{
		"token":              {nil, "Authorization: Bearer good\r\n", bearer("good")},
		"certificate":        {bob, "X-Remote-User: mallory\r\n", http.Header{"X-Remote-User": {"bob"}, "Credential-Id": nil}},
		"WebSocket protocol": {nil, "Sec-Websocket-Protocol: base64url.bearer.authorization.k8s.io.Z29vZA, v5.channel.k8s.io\r\n", http.Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{RootCAs: s.serving.pool(), NextProtos: []string{"http/1.1"}}
			if c.certificate != nil {
				config.Certificates = []tls.Certificate{*c.certificate}
			}
			conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), config)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /api/v1/namespaces/a/pods/b/exec?command=sh HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n%s\r\nahead\n", c.header)
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "SPDY/3.1" {
				t.Fatalf("answer %v, error %v", resp, err)
			}
			for _, word := range []string{"AHEAD\n", "MORE\n"} {
				if line, err := r.ReadString('\n'); err != nil || line != word {
					t.Fatalf("heard %q, error %v, want %q", line, err, word)
				}
				_, _ = io.WriteString(conn, "more\n")
			}
			got := s.api.one(t)
			if diff := cmp.Diff(c.want, identityOf(got.Header)); diff != "" || got.Proto != "HTTP/1.1" {
				t.Errorf("%s (-want +got):\n%s", got.Proto, diff)
			}
			if name == "WebSocket protocol" && !strings.HasPrefix(got.Header.Get("Sec-Websocket-Protocol"), "base64url.bearer") {
				t.Errorf("the token was lost: %v", got.Header)
			}
		})
	}
}

// TestWatchComesAtOnce sends events one after the other, each when the client has the one before.
func TestWatchComesAtOnce(t *testing.T) {
	s := newStage(t, nil)
	for version := 1; version <= 2; version++ {
		for _, header := range []http.Header{nil, bearer("good")} {
			next := make(chan struct{}) // the one before may still be listening to its own
			s.api.handleWith(events(next))
			r, err := http.NewRequest(http.MethodGet, s.url+"/api/v1/pods?watch=1", nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, values := range header {
				r.Header[name] = values
			}
			resp, err := s.client(t, nil, version).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(resp.Body)
			for i := range 3 {
				next <- struct{}{}
				if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("event %d\n", i) {
					t.Fatalf("HTTP/%d: heard %q, error %v", version, line, err)
				}
			}
			resp.Body.Close()
		}
	}
}

// events writes one for each word that it gets.
func events(next <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		for i := 0; ; i++ {
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
			fmt.Fprintf(w, "event %d\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

func TestTrailersAndChunksPass(t *testing.T) {
	s := newStage(t, nil)
	s.api.handleWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", fmt.Sprint(len(body)))
	})
	for version := 1; version <= 2; version++ {
		resp, body := do(t, s.client(t, nil, version), http.MethodPost, s.url+"/x", nil, io.NopCloser(strings.NewReader(strings.Repeat("a", 100000))))
		if len(body) != 100000 || resp.Trailer.Get("X-Sum") != "100000" {
			t.Errorf("HTTP/%d: %d bytes, trailers %v", version, len(body), resp.Trailer)
		}
	}
}

func TestAPIServerAway(t *testing.T) {
	s := newStage(t, nil)
	s.api.CloseClientConnections()
	s.api.Listener.Close()
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	for _, certificate := range []*tls.Certificate{nil, bob} {
		resp, body := do(t, s.client(t, certificate, 1), http.MethodGet, s.url+"/version", nil, nil)
		if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, `"kind":"Status"`) || !strings.Contains(body, "connection refused") {
			t.Errorf("answer %d %s", resp.StatusCode, body)
		}
	}
}

// TestDrain ends the front while it has a watch, a slow answer and an upgraded connection.
func TestDrain(t *testing.T) {
	s := newStage(t, func(s *stage, _ *frontConfig) { s.options.DrainTimeout = 500 * time.Millisecond })
	slow := make(chan struct{})
	s.api.handleWith(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") != "":
			echoUpgrade(w, r)
		case r.URL.Query().Has("watch"):
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			close(slow)
			time.Sleep(100 * time.Millisecond) // what takes its time
			_, _ = io.WriteString(w, "done")
		}
	})
	c := s.client(t, nil, 2)
	watch, err := c.Get(s.url + "/api/v1/pods?watch=1")
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 1)
	go func() {
		resp, err := s.client(t, nil, 1).Get(s.url + "/slow")
		if err != nil {
			answers <- err.Error()
			return
		}
		body, err := io.ReadAll(resp.Body)
		answers <- fmt.Sprint(string(body), err)
	}()
	<-slow
	upgraded, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.serving.pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer upgraded.Close()
	_, _ = io.WriteString(upgraded, "GET /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	if _, err := bufio.NewReader(upgraded).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	if rest, err := io.ReadAll(watch.Body); err != nil || len(rest) > 0 {
		t.Errorf("the watch ended with %q, error %v", rest, err)
	}
	if got := <-answers; got != "done<nil>" {
		t.Errorf("the slow answer: %s", got)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the front does not end")
	}
	if s.Ready() == nil {
		t.Error("it is ready, though it has ended")
	}
}

func TestLoopbackPortWantsTokens(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	s := newStage(t, func(s *stage, _ *frontConfig) { s.options.InsecureLoopbackPort = port })
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice"}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	for token, code := range map[string]int{"alice": 200, "wrong": 401} {
		if resp, body := do(t, http.DefaultClient, http.MethodGet, url+podProxy, bearer(token), nil); resp.StatusCode != code {
			t.Errorf("%s: answer %d %s", token, resp.StatusCode, body)
		}
	}
	header := bearer("alice")
	header["X-Remote-User"] = []string{"mallory"}
	do(t, http.DefaultClient, http.MethodGet, url+"/version", header, nil)
	if diff := cmp.Diff(bearer("alice"), identityOf(s.api.one(t).Header)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNothingIsLeftBehind aborts many requests of all kinds and counts goroutines.
func TestNothingIsLeftBehind(t *testing.T) {
	s := newStage(t, nil)
	s.api.handleWith(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	before := runtime.NumGoroutine()
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	for version := 1; version <= 2; version++ {
		for _, c := range []*http.Client{s.client(t, nil, version), s.client(t, bob, version)} {
			for i := range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+[]string{"/version", "/api/v1/pods?watch=1"}[i%2], nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				cancel()
				resp.Body.Close()
			}
			c.CloseIdleConnections()
		}
	}
	s.api.CloseClientConnections()
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+10 })
}
