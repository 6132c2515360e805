package cluster_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	kubectl "k8s.io/kubectl/pkg/proxy"
)

// TestReplayExec has the API server refuse what an exec plugin gave first. kubectl proxy hands the first 401 to its
// client; here only the second answer is seen.
func TestReplayExec(t *testing.T) {
	a, p := newAPI(t), newPlugin(t)
	s := newStage(t, a, p.user())
	c := s.get("")
	p.givesToken("one")
	a.accept("one")
	if got := answer(t, c, get("/api")); got != "200 HTTP/1.1 GET /api" {
		t.Fatal(got)
	}

	original, err := kubectl.NewProxyHandler("/", nil, c.Config, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	p.givesToken("two")
	a.accept("two")
	w := httptest.NewRecorder()
	original.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api", nil))
	if w.Code != http.StatusUnauthorized {
		t.Errorf("kubectl proxy answers %d; this test shows nothing if it does not answer 401", w.Code)
	}

	p.givesToken("three")
	a.accept("three")
	if got := answer(t, c, get("/api")); got != "200 HTTP/1.1 GET /api" {
		t.Errorf("got %s", got)
	}
	if got := p.runs(); got != 3 {
		t.Errorf("the plugin ran %d times, want 3", got)
	}
}

// TestReplaySources renews a credential in each of the places that it may come from.
func TestReplaySources(t *testing.T) {
	tests := []struct {
		name  string
		user  func(s *stage) *clientcmdapi.AuthInfo
		renew func(s *stage)
	}{
		{"token file", func(s *stage) *clientcmdapi.AuthInfo {
			put(s.t, filepath.Join(s.dir, "token"), "one\n")
			return &clientcmdapi.AuthInfo{TokenFile: filepath.Join(s.dir, "token")}
		}, func(s *stage) { put(s.t, filepath.Join(s.dir, "token"), "two") }},
		{"token in the kubeconfig", func(s *stage) *clientcmdapi.AuthInfo {
			return &clientcmdapi.AuthInfo{Token: "one"}
		}, func(s *stage) {
			s.file.AuthInfos["main"].Token = "two"
			s.save()
		}},
		{"another kind in the kubeconfig", func(s *stage) *clientcmdapi.AuthInfo {
			return &clientcmdapi.AuthInfo{Username: "u", Password: "p"}
		}, func(s *stage) {
			s.file.AuthInfos["main"] = &clientcmdapi.AuthInfo{Token: "two"}
			s.save()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t)
			s := newStage(t, a, nil, func(s *stage) { s.file.AuthInfos["main"] = tt.user(s) })
			c := s.get("")
			if got := answer(t, c, get("/first")); got != "200 HTTP/1.1 GET /first" {
				t.Fatal(got)
			}
			a.accept("two")
			if got := answer(t, c, get("/early")); got != `401 {"kind":"Status","code":401}` {
				t.Errorf("without another credential: %s", got)
			}
			if n := len(a.requests()); n != 2 {
				t.Errorf("%d requests, want 2: the same credential is not sent twice", n)
			}
			tt.renew(s)
			if got := answer(t, c, get("/get")); got != "200 HTTP/1.1 GET /get" {
				t.Errorf("GET: %s", got)
			}
			if got := answer(t, s.get(""), get("/again")); got != "200 HTTP/1.1 GET /again" {
				t.Errorf("the next request: %s", got)
			}
			if n := len(a.requests()); n != 5 {
				t.Errorf("%d requests, want 5: the one after the replay needs none", n)
			}
		})
	}
}

// TestReplayKinds sends each kind of request with a token that has been replaced.
func TestReplayKinds(t *testing.T) {
	tests := []struct {
		name string
		send func(t *testing.T, s *stage) string
		want string
	}{
		{"GET", func(t *testing.T, s *stage) string { return answer(t, s.get(""), get("/x")) }, "200 HTTP/1.1 GET /x"},
		{"HEAD", func(t *testing.T, s *stage) string {
			return answer(t, s.get(""), httptest.NewRequest(http.MethodHead, "/x", nil))
		}, "200 "},
		{"watch", func(t *testing.T, s *stage) string {
			resp, err := ask(t, s.get(""), get("/x?watch=1"), true)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			return firstLine(t, resp.Body)
		}, "HTTP/2.0 event\n"},
		{"upgrade", func(t *testing.T, s *stage) string { return echo(t, s.get(""))("hello") }, "echo hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, p := newAPI(t), newPlugin(t)
			s := newStage(t, a, p.user())
			p.givesToken("one")
			a.accept("one")
			if got := answer(t, s.get(""), get("/first")); got != "200 HTTP/1.1 GET /first" {
				t.Fatal(got)
			}
			p.givesToken("two")
			a.accept("two")
			if got := tt.send(t, s); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if n := len(a.requests()); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

// TestReplayBodies sends bodies of several sizes. Those that have begun to go out and are not kept are not sent again.
func TestReplayBodies(t *testing.T) {
	tests := []struct {
		name   string
		body   string
		header http.Header
		length int64 // announced; 0: that of the body
		want   string
	}{
		{"small", "small", nil, 0, "200"},
		{"read before it is refused", "small", http.Header{"X-Read-First": {"1"}}, 0, "200"},
		{"of unknown length", strings.Repeat("u", 100<<10), http.Header{"X-Read-First": {"1"}}, -1, "200"},
		{"at the bound", strings.Repeat("b", 256<<10), http.Header{"X-Read-First": {"1"}}, 0, "200"},
		{"beyond the bound", strings.Repeat("b", 256<<10+1), http.Header{"X-Read-First": {"1"}}, 0, "401"},
		{"large, and held back", strings.Repeat("h", 4<<20), http.Header{"Expect": {"100-continue"}}, 0, "200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, p := newAPI(t), newPlugin(t)
			s := newStage(t, a, p.user())
			p.givesToken("one")
			a.accept("one")
			answer(t, s.get(""), get("/first"))
			p.givesToken("two")
			a.accept("two")
			r := post("/x", tt.body)
			if tt.length != 0 {
				r.ContentLength = tt.length
			}
			for k, v := range tt.header {
				r.Header[k] = v
			}
			if got := answer(t, s.get(""), r); got[:3] != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if _, got := a.last(); got != tt.body {
				t.Errorf("the API server got a body of %d bytes, want the same %d", len(got), len(tt.body))
			}
		})
	}
}

// TestReplayOnce has the plugin give a token that is refused too: there is no third attempt.
func TestReplayOnce(t *testing.T) {
	a, p := newAPI(t), newPlugin(t)
	s := newStage(t, a, p.user())
	p.givesToken("one")
	a.accept("one")
	answer(t, s.get(""), get("/first"))
	p.givesToken("two")
	a.accept("three")
	if got := answer(t, s.get(""), get("/x")); got != `401 {"kind":"Status","code":401}` {
		t.Errorf("got %s", got)
	}
	if n := len(a.requests()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// TestReplayTogether has many requests refused at the same moment. The plugin runs once for all of them.
func TestReplayTogether(t *testing.T) {
	const clients = 20
	a, p := newAPI(t), newPlugin(t)
	s := newStage(t, a, p.user())
	p.givesToken("one")
	a.accept("one")
	c := s.get("")
	answer(t, c, get("/first"))
	p.givesToken("two")
	a.accept("two")
	a.mu.Lock()
	a.arrived, a.gate = make(chan struct{}, 3*clients), make(chan struct{})
	a.mu.Unlock()
	var all sync.WaitGroup
	answers := make([]string, clients)
	for i := range clients {
		all.Go(func() { answers[i] = answer(t, c, get(fmt.Sprint("/", i))) })
	}
	for range clients {
		<-a.arrived // all of them wait to be refused
	}
	close(a.gate)
	all.Wait()
	for i, got := range answers {
		if want := fmt.Sprint("200 HTTP/1.1 GET /", i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := p.runs(); got != 2 {
		t.Errorf("the plugin ran %d times, want 2: at first, and for all that were refused", got)
	}
}

// TestReplayKeepsConnection replays many times: the refused answers' connections are used again.
func TestReplayKeepsConnection(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, nil, func(s *stage) {
		put(t, filepath.Join(s.dir, "token"), "0")
		s.file.AuthInfos["main"] = &clientcmdapi.AuthInfo{TokenFile: filepath.Join(s.dir, "token")}
	})
	for i := range 20 {
		token := fmt.Sprint(i)
		put(t, filepath.Join(s.dir, "token"), token)
		a.accept(token)
		r := post("/x", "body")
		r.Header.Set("X-Read-First", "1")
		if got := answer(t, s.get(""), r); got != "200 HTTP/1.1 POST /x" {
			t.Fatal(got)
		}
	}
	if n := a.connections(); n != 1 {
		t.Errorf("%d connections for 20 replays, want 1", n)
	}
}

// TestReplayUnfinished refuses a request whose client has sent a part of its body only: what was sent and what is still to
// come arrive as one. A client that keeps silent gets the 401 after a while.
func TestReplayUnfinished(t *testing.T) {
	for name, goesOn := range map[string]bool{"goes on": true, "is silent": false} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			s := newStage(t, a, nil, func(s *stage) {
				put(t, filepath.Join(s.dir, "token"), "one")
				s.file.AuthInfos["main"] = &clientcmdapi.AuthInfo{TokenFile: filepath.Join(s.dir, "token")}
			})
			answer(t, s.get(""), get("/first"))
			put(t, filepath.Join(s.dir, "token"), "two")
			a.accept("two")
			a.mu.Lock()
			a.arrived = make(chan struct{}, 10)
			a.mu.Unlock()
			client, body := io.Pipe()
			done := make(chan string)
			go func() {
				r := httptest.NewRequest(http.MethodPost, "/x", client)
				r.ContentLength = -1
				r.Header.Set("X-Read-Part", "6")
				done <- answer(t, s.get(""), r)
			}()
			io.WriteString(body, "first ")
			<-a.arrived
			want := "401"
			if goesOn {
				io.WriteString(body, "second")
				body.Close()
				want = "200"
			}
			if got := <-done; got[:3] != want {
				t.Errorf("got %s, want %s", got, want)
			}
			body.Close()
			if _, sent := a.last(); goesOn && sent != "first second" {
				t.Errorf("the API server got %q", sent)
			}
		})
	}
}
