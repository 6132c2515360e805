package load_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"varco.dev/bench/internal/load"
)

// serveTLS wants the token, and answers with more than one record of TLS.
func serveTLS(t *testing.T, version uint16) (load.Request, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "who is it?", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "hello")
		w.(http.Flusher).Flush()
		fmt.Fprint(w, "again")
	}))
	s.TLS = &tls.Config{MaxVersion: version}
	s.StartTLS()
	t.Cleanup(s.Close)
	trust := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	trust.ServerName = "127.0.0.1"
	to := netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "https://"))
	return load.Request{To: to, Path: "/", TLS: trust, Token: "secret"}, &asked
}

func TestGetterSpeaksTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r, asked := serveTLS(t, version)
		g, err := load.NewGetter(r, 3)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		got, err := g.Run(t.Context(), 50*time.Millisecond)
		if n := len(got.Latencies); err != nil || n == 0 || int(asked.Load()) < n || int(asked.Load()) > n+3 {
			t.Errorf("%s: got %d answers to %d requests, %v", tls.VersionName(version), n, asked.Load(), err)
		}
	}
	r, _ := serveTLS(t, tls.VersionTLS13)
	r.TLS = &tls.Config{ServerName: "127.0.0.1"}
	if _, err := load.NewGetter(r, 1); err == nil {
		t.Error("a server that nobody vouches for is trusted")
	}
}

func TestGetterCountsFailures(t *testing.T) {
	var asked atomic.Int64
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%4 == 0 {
			http.Error(w, "every fourth", http.StatusBadGateway)
		}
	})
	g, err := load.NewGetter(load.Request{To: to, Path: "/", Failures: true}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	got, err := g.Run(t.Context(), 50*time.Millisecond)
	if n := len(got.Latencies); err != nil || got.Failed < 1 || got.Failed*3 > n || (got.Failed+1)*3 < n || !strings.Contains(got.Failure, "every fourth") {
		t.Errorf("got %d answers and %d failures, %q, %v, want a fourth", n, got.Failed, got.Failure, err)
	}
}

func TestPaceKeepsTime(t *testing.T) {
	var asked atomic.Int64
	to := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	g, err := load.NewGetter(load.Request{To: to, Path: "/"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	began := time.Now()
	got, err := g.Pace(t.Context(), 500, 100*time.Millisecond, 200*time.Millisecond)
	if err != nil || len(got.Latencies) != 100 || asked.Load() != 150 || time.Since(began) < 290*time.Millisecond {
		t.Errorf("got %d latencies of %d requests in %s, %v, want 100 of 150 in 0.3 s", len(got.Latencies), asked.Load(), time.Since(began), err)
	}
}

// A server that stops for a while is to be seen in the latencies of all requests that were due meanwhile.
func TestPaceDoesNotForgetWhatWasDue(t *testing.T) {
	var asked atomic.Int64
	const stop = 100 * time.Millisecond
	to := serve(t, func(http.ResponseWriter, *http.Request) {
		if asked.Add(1) == 10 {
			time.Sleep(stop) // the server is slow
		}
	})
	g, err := load.NewGetter(load.Request{To: to, Path: "/"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	got, err := g.Pace(t.Context(), 500, 0, 400*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	slow := 0
	for _, l := range got.Latencies {
		if l > stop/2 {
			slow++
		}
	}
	if slow < 20 {
		t.Errorf("%d of %d requests waited for the server, want 25: those due in the first half of its stop", slow, len(got.Latencies))
	}
	if len(got.Latencies) != 200 {
		t.Errorf("got %d latencies, want 200", len(got.Latencies))
	}
}

// A server that cannot keep up is asked all the same, and each request waits longer than the one before.
func TestPaceBeyondWhatTheServerCan(t *testing.T) {
	to := serve(t, func(http.ResponseWriter, *http.Request) { time.Sleep(10 * time.Millisecond) }) // the server is slow
	g, err := load.NewGetter(load.Request{To: to, Path: "/"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	got, err := g.Pace(t.Context(), 500, 0, 100*time.Millisecond)
	if err != nil || len(got.Latencies) != 50 {
		t.Fatalf("got %d latencies, %v, want 50", len(got.Latencies), err)
	}
	if last := got.Latencies[49]; last < 350*time.Millisecond {
		t.Errorf("the last of 50 requests to a server of 10 ms took %s, want 0.4 s: it was due after 0.1 s", last)
	}
}

func TestFetchTellsOfTheFirstByte(t *testing.T) {
	const gap = 100 * time.Millisecond
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "first")
		w.(http.Flusher).Flush()
		time.Sleep(gap) // the server is slow
		fmt.Fprint(w, "last")
	})
	got, err := load.Fetch(t.Context(), http.DefaultClient, "http://"+to.String())
	if err != nil || got.Bytes != 9 || got.First > gap/2 || got.Whole < gap {
		t.Errorf("got %+v, %v", got, err)
	}
	refused := serve(t, http.NotFound)
	if got, err := load.Fetch(t.Context(), http.DefaultClient, "http://"+refused.String()); err == nil {
		t.Errorf("a refusal is taken for a body: %+v", got)
	}
}
