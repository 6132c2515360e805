package https_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiserverlb/https"
)

// TestRequestsOfOneConnectionAreSpread wants the requests of one client on one connection to go to all API servers.
func TestRequestsOfOneConnectionAreSpread(t *testing.T) {
	s := newStage(t, nil)
	c := s.client(t, nil, 2)
	began := time.Now()
	for range 90 {
		if resp, _ := do(t, c, "GET", s.url+pods, token(), nil); resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Fatalf("answer %s %s", resp.Proto, resp.Status)
		}
	}
	for _, a := range s.apis {
		if n := len(a.take()); n < 20 || n > 40 {
			t.Errorf("%s got %d requests of 90", a.addr, n)
		}
		if last := s.LastByte(a.addr); last.Before(began) || last.After(time.Now()) {
			t.Errorf("%s was heard last at %v", a.addr, last)
		}
	}
	if last := s.LastByte(netip.MustParseAddrPort("192.0.2.1:443")); !last.IsZero() {
		t.Errorf("nobody was heard last at %v", last)
	}
	if n := s.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestRequestsGoElsewhere has something wrong with one backend or all, and looks at one request.
func TestRequestsGoElsewhere(t *testing.T) {
	busy := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
	}
	breaks := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
			return
		}
		panic(http.ErrAbortHandler)
	}
	for _, c := range []struct {
		name         string
		method, body string
		header       http.Header
		wrong        func(*api)
		all          bool
		code         int
		retryAfter   string
		event        https.Event
	}{
		{name: "refused", method: "GET", wrong: func(a *api) { a.CloseClientConnections(); a.Close() }, code: 200, event: https.Refused},
		{name: "refused, with a body", method: "POST", body: "x", wrong: (*api).stopNow, code: 200, event: https.Refused},
		{name: "all refuse", method: "POST", body: "x", wrong: (*api).stopNow, all: true, code: 503, retryAfter: "1", event: https.Refused},
		{name: "no handshake", method: "POST", body: "x", wrong: (*api).hang, code: 200, event: https.Silent},
		{name: "breaks", method: "GET", wrong: func(a *api) { a.answers(breaks) }, code: 200, event: https.Broken},
		{name: "a watch breaks before it begins", method: "WATCH", wrong: func(a *api) { a.answers(breaks) }, code: 200, event: https.Broken},
		{name: "breaks at a change", method: "POST", body: "x", wrong: func(a *api) { a.answers(breaks) }, all: true, code: 502, event: https.Broken},
		{name: "breaks at a delete", method: "DELETE", wrong: func(a *api) { a.answers(breaks) }, all: true, code: 502, event: https.Broken},
		{name: "all break", method: "GET", wrong: func(a *api) { a.answers(breaks) }, all: true, code: 503, retryAfter: "1", event: https.Broken},
		{name: "busy", method: "GET", wrong: func(a *api) { a.answers(busy) }, code: 200, event: https.Busy},
		{name: "all busy", method: "GET", wrong: func(a *api) { a.answers(busy) }, all: true, code: 429, retryAfter: "1", event: https.Busy},
		{name: "busy for a change", method: "POST", body: "x", wrong: func(a *api) { a.answers(busy) }, all: true, code: 429, retryAfter: "1", event: https.Busy},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, nil)
			for i, a := range s.apis {
				if i == 0 || c.all {
					c.wrong(a)
				}
			}
			client := s.client(t, nil, 1)
			url := s.url + pods
			method := c.method
			if method == "WATCH" {
				method, url = "GET", url+"?watch=true"
			}
			for n := 0; s.balancer.count(c.event) == 0; n++ { // until it has been chosen
				if n == 50 {
					t.Fatalf("no attempt %v", c.event)
				}
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
				}
				resp, content := do(t, client, method, url, token(), body)
				if resp.StatusCode != c.code || resp.Header.Get("Retry-After") != c.retryAfter {
					t.Fatalf("answer %s, Retry-After %q, %s", resp.Status, resp.Header.Get("Retry-After"), content)
				}
				if c.code >= 500 {
					var status metav1.Status
					if err := json.Unmarshal([]byte(content), &status); err != nil || status.Message == "" {
						t.Errorf("body %s", content)
					}
				}
			}
			sum := 0
			for _, a := range s.apis {
				for _, r := range a.take() {
					sum++
					if r.Body != c.body && c.code == 200 {
						t.Errorf("a body arrived as %q", r.Body)
					}
				}
			}
			waitFor(t, func() bool { return s.balancer.leased.Load() == 0 })
			if n := s.balancer.count(https.Busy); c.name == "all busy" && n != 2 {
				t.Errorf("%d were busy", n)
			}
			if c.code == 502 && sum != 1 {
				t.Errorf("a change was sent %d times", sum)
			}
		})
	}
}

func (a *api) stopNow() { a.CloseClientConnections(); a.Close() }

// TestUntrustedBackend wants nothing to be sent to whoever has taken the place of an API server.
func TestUntrustedBackend(t *testing.T) {
	s := newStage(t, func(s *stage, c *https.Config, _ *https.Listener) {
		c.Backends.CAFile = s.write(t, "other.crt", newAuthority(t, "other").pem)
	})
	resp, _ := do(t, s.client(t, nil, 1), "GET", s.url+pods, token(), nil)
	if resp.StatusCode != 503 || s.balancer.count(https.Untrusted) != 3 {
		t.Errorf("answer %s, %d attempts untrusted", resp.Status, s.balancer.count(https.Untrusted))
	}
	for _, a := range s.apis {
		if got := a.take(); len(got) > 0 {
			t.Errorf("got %+v", got)
		}
	}
}

// TestBusyBackendIsLeftOut wants a backend that turns requests away to get no more for the time that it asks for, but for
// watches, and one that ends to get no watches either; and an answer about one object to mean nothing of the kind.
func TestBusyBackendIsLeftOut(t *testing.T) {
	for _, c := range []struct {
		name           string
		method         string
		close, status  bool
		fair           bool // of priority and fairness
		after          string
		more, watching bool // whether it gets further requests, and watches
		others         bool // whether it gets further requests of others
		path           string
	}{
		{name: "busy", method: "GET", after: "3", watching: true},
		{name: "busy for a change", method: "POST", after: "3", watching: true},
		{name: "busy for one client", method: "GET", fair: true, after: "3", watching: true, others: true},
		{name: "ending", method: "GET", close: true, after: "3"},
		{name: "no time", method: "POST", after: "", more: true, watching: true, others: true},
		{name: "a pod of somebody", method: "GET", path: pods + "/b/proxy/", close: true, after: "10", more: true, watching: true, others: true},
		{name: "a pod of somebody, as it was long ago", method: "GET", path: "/api/v1/proxy/namespaces/a/pods/b/", after: "10", more: true, watching: true, others: true},
		{name: "a kubelet", method: "GET", path: pods + "/b/log", after: "10", more: true, watching: true, others: true},
		{name: "an eviction that must wait", method: "POST", status: true, after: "10", more: true, watching: true, others: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, nil)
			one := s.apis[0]
			var turned atomic.Bool
			one.answers(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery != "" || !turned.CompareAndSwap(false, true) {
					return
				}
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				if c.close {
					w.Header().Set("Connection", "close")
				}
				if c.fair {
					w.Header().Set("X-Kubernetes-PF-PriorityLevel-UID", "1")
				}
				if c.status {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusTooManyRequests)
					io.WriteString(w, "{}")
					return
				}
				http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
			})
			client := s.client(t, nil, 2)
			for n := 0; !turned.Load(); n++ {
				if n == 50 {
					t.Fatal("it is not asked")
				}
				do(t, client, c.method, s.url+cmp.Or(c.path, pods), token(), nil)
			}
			one.take()
			for range 30 {
				do(t, client, "GET", s.url+pods, token(), nil)
			}
			if n := len(one.take()); (n > 0) != c.more {
				t.Errorf("it got %d further requests", n)
			}
			for range 30 {
				do(t, client, "GET", s.url+pods, http.Header{"Authorization": {"Bearer other"}}, nil)
			}
			if n := len(one.take()); (n > 0) != c.others {
				t.Errorf("it got %d requests of others", n)
			}
			for range 30 {
				do(t, client, "GET", s.url+pods+"?watch=true", token(), nil)
			}
			if n := len(one.take()); (n > 0) != c.watching {
				t.Errorf("it got %d watches", n)
			}
		})
	}
}

// TestNothingIsDoneTwice wants what may have been carried out not to be sent again, whatever its header promises, and an exec
// not either, although it is a GET. net/http would on a connection that has served before.
func TestNothingIsDoneTwice(t *testing.T) {
	for _, c := range []struct {
		method, path string
		header       http.Header
	}{
		{"POST", pods, http.Header{"Idempotency-Key": {"1"}}},
		{"GET", pods + "/b/exec", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}},
	} {
		t.Run(c.method, func(t *testing.T) {
			s := newStage(t, nil)
			one := s.apis[0]
			s.balancer.leave(s.apis[1:]...)
			client := s.client(t, nil, 1)
			maps.Copy(c.header, token())
			if resp, _ := do(t, client, c.method, s.url+c.path, c.header, nil); resp.StatusCode != http.StatusOK {
				t.Fatalf("answer %s", resp.Status)
			}
			one.take()
			one.answers(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			if resp, _ := do(t, client, c.method, s.url+c.path, c.header, nil); resp.StatusCode < 500 {
				t.Errorf("answer %s", resp.Status)
			}
			if n := len(one.take()); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}

// TestNothingFails keeps asking and watching while something happens to one API server, and back.
func TestNothingFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		happen func(*stage, *api)
	}{
		{"stopped", func(s *stage, a *api) {
			a.stopNow()
			s.balancer.leave(a)
			s.End(a.addr)
		}},
		{"hung", func(s *stage, a *api) {
			a.hang()
			time.Sleep(200 * time.Millisecond) // the checks need their time, and requests run into it meanwhile
			s.balancer.leave(a)
			s.End(a.addr)
			time.Sleep(100 * time.Millisecond) // so that the others show
			a.resume()
			s.balancer.leave()
		}},
		{"busy", func(_ *stage, a *api) {
			a.answers(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "1")
				http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
			})
			time.Sleep(300 * time.Millisecond) // meanwhile
			a.answers(listing)
		}},
		{"draining", func(s *stage, a *api) {
			time.Sleep(1100 * time.Millisecond) // younger watches are not ended
			s.balancer.leave(a)
			for n := range 20 {
				s.Shed(a.addr, n)
				time.Sleep(5 * time.Millisecond) // a pace
			}
			s.balancer.leave()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, nil)
			for _, a := range s.apis {
				a.answers(listing)
			}
			w := newWorkers(t, s)
			c.happen(s, s.apis[0])
			before := w.asked.Load()
			waitFor(t, func() bool { return w.asked.Load() > before+50 })
			w.end()
			if n := w.watches.Load(); n < 32 {
				t.Errorf("%d watches", n)
			}
		})
	}
}

// listing answers lists and watches.
func listing(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.RawQuery, "watch") {
		watching(nil)(w, r)
		return
	}
	io.WriteString(w, "x")
}

// workers keep asking and watching. Whatever fails is an error of the test.
type workers struct {
	asked, watches atomic.Int64
	end            func()
}

// newWorkers returns them when they are at work.
func newWorkers(t *testing.T, s *stage) *workers {
	ctx, cancel := context.WithCancel(t.Context())
	w := &workers{}
	var all sync.WaitGroup
	w.end = func() { cancel(); all.Wait() }
	for i := range 8 {
		client := s.client(t, s.clients.pair(t, "bob"), 1+i%2)
		all.Go(func() {
			for ctx.Err() == nil {
				resp, body, err := ask(client, "GET", s.url+pods, nil, nil)
				if err != nil || resp.StatusCode != 200 || body != "x" {
					t.Errorf("answer %v %q %v", resp, body, err)
					return
				}
				w.asked.Add(1)
			}
		})
		for range 4 {
			all.Go(func() {
				for ctx.Err() == nil {
					if err := watch(ctx, client, s.url+pods+"?watch=true"); err != nil {
						t.Error(err)
						return
					}
					w.watches.Add(1)
				}
			})
		}
	}
	waitFor(t, func() bool { return w.asked.Load() > 50 && s.Stats().Requests >= 32 })
	return w
}

// watch watches until the watch ends in order, or the context does.
func watch(ctx context.Context, c *http.Client, url string) error {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return fmt.Errorf("a watch was answered %s", resp.Status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", errUnclean, err)
	}
	return nil
}
