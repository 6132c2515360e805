package apiserverlb

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// balancer is one of the tests, in front of servers of the tests. It goes to the server with the fewest connections of those
// that are not avoided.
type balancer struct {
	servers []*httptest.Server
	refuse  atomic.Bool // servers find nothing

	mu      sync.Mutex
	avoided map[int]bool
	conns   map[net.Conn]int
}

// newBalancer starts servers that answer as API servers do, so far as clients of the bench can see.
func newBalancer(t *testing.T) *balancer {
	t.Helper()
	b := &balancer{avoided: map[int]bool{}, conns: map[net.Conn]int{}}
	for i := range backendCount {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(identity, fmt.Sprintf("max-age=%d", i+1))
			if b.refuse.Load() {
				http.NotFound(w, r)
				return
			}
			if r.URL.Query().Has("watch") {
				_ = http.NewResponseController(w).Flush() // the client is gone
				<-r.Context().Done()
			}
		}))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		b.servers = append(b.servers, s)
	}
	return b
}

func (b *balancer) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := make([]int, len(b.servers))
	for _, s := range b.conns {
		counts[s]++
	}
	for s := range b.avoided {
		counts[s] = math.MaxInt
	}
	to := slices.Index(counts, slices.Min(counts))
	c, err := (&net.Dialer{}).DialContext(ctx, network, b.servers[to].Listener.Addr().String())
	if err == nil {
		b.conns[c] = to
	}
	return c, err
}

// avoid keeps clients from a server, or not any more, and ends their connections if that is wished.
func (b *balancer) avoid(server int, avoid, end bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delete(b.avoided, server); avoid {
		b.avoided[server] = true
	}
	for c, s := range b.conns {
		if s == server && end {
			delete(b.conns, c)
			_ = c.Close() // the client may be gone
		}
	}
}

// newSiege has clients that go through the balancer.
func newSiege(t *testing.T, b *balancer, plan Plan) *siege {
	t.Helper()
	s := &siege{Bench: newBench(t, plan), cluster: &cluster{servers: make([]*apiServer, backendCount)}}
	trust := &tls.Config{InsecureSkipVerify: true}
	r := &run{name: varco, round: 1, place: &s.place}
	f := launch(t.Context(), r, plan.Watches, func() *http.Client { return newClient(b.dial, trust, r.at) })
	s.fleets = append(s.fleets, f)
	t.Cleanup(s.end)
	if err := await(t.Context(), func() error { return nil }, f.steady); err != nil {
		t.Fatal(err)
	}
	return s
}

func siegePlan() Plan {
	p := quickPlan()
	p.Watches, p.Probes, p.Requests = 9, 50, 100
	p.FaultTime, p.SpreadLeast, p.SpreadMost = 600*time.Millisecond, 300*time.Millisecond, 600*time.Millisecond
	return p
}

// A balancer that ends the connections of a server has its watches move; one that only avoids it has not.
func TestFault(t *testing.T) {
	for _, end := range []bool{true, false} {
		b := newBalancer(t)
		s := newSiege(t, b, siegePlan())
		var undone bool
		err := s.fault(t.Context(), groupHung, 1, func() error { b.avoid(1, true, end); return nil }, func() error { undone = true; return nil })
		if err != nil || !undone {
			t.Fatalf("undone: %t, %v", undone, err)
		}
		got := s.samples.Of(varco, when(groupHung, moved), one)
		if len(got) != 1 || got[0] <= 0 || end == math.IsInf(got[0], 1) || end && got[0] > 0.6 {
			t.Errorf("connections end: %t: watches have moved on after %v s", end, got)
		}
		probes := s.fleets[0].seen().probes
		if percent, _ := failures(probes, time.Time{}, time.Now()); len(probes) < 10 || percent != 0 {
			t.Errorf("%d new connections, %v %% failed", len(probes), percent)
		}
	}
}

// Requests that fail are counted, and so are connections until they are spread.
func TestSpreadAndRequests(t *testing.T) {
	b := newBalancer(t)
	s := newSiege(t, b, siegePlan())
	f := s.fleets[0]
	b.avoid(2, true, true)
	stop := f.request(t.Context(), s.plan.Requests)
	if err := await(t.Context(), func() error { return nil }, func() error {
		if now := f.seen().where(time.Now()); slices.Contains(now, gone) || slices.Contains(now, 2) {
			return fmt.Errorf("clients are at %v", now)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.spread(t.Context(), began); err != nil {
		t.Fatal(err)
	}
	if got := s.samples.Of(varco, spreadTime, one); len(got) != 1 || !math.IsInf(got[0], 1) {
		t.Errorf("with nobody at a server it was even after %v s", got)
	}
	s.samples = nil
	b.avoid(2, false, false)
	go func() {
		b.avoid(0, false, true)
		b.avoid(1, false, true)
	}()
	if err := s.spread(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := s.samples.Of(varco, spreadEnds, one); len(got) != 1 || got[0] <= 0 {
		t.Errorf("closed connections: %v %% a second", got)
	}
	stop()
	s.rolled(f, f.seen().requests, began, time.Now())
	count, bad := s.samples.Of(varco, rollCount, one), s.samples.Of(varco, rollFailed, one)
	if len(count) != 1 || count[0] < 10 || len(bad) != 1 || bad[0] > count[0] {
		t.Errorf("%v of %v requests failed", bad, count)
	}
}

// What is refused is a failure.
func TestRefused(t *testing.T) {
	b := newBalancer(t)
	s := newSiege(t, b, siegePlan())
	b.refuse.Store(true)
	stop := s.fleets[0].request(t.Context(), s.plan.Requests)
	defer stop()
	if err := await(t.Context(), func() error { return nil }, func() error {
		if j := s.fleets[0].seen(); len(j.requests) < 5 {
			return fmt.Errorf("%d requests", len(j.requests))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if percent, _ := failures(s.fleets[0].seen().requests, time.Time{}, time.Now()); percent != 100 {
		t.Errorf("%v %% of requests failed", percent)
	}
}
