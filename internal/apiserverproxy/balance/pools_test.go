package balance_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/apiserverproxy/balance"
)

// model is a RoundTripper whose endpoints are a function: how long they take, and whether they take connections.
type model func(host string) (time.Duration, bool)

// RoundTrip implements http.RoundTripper.
func (m model) RoundTrip(r *http.Request) (*http.Response, error) {
	trace := httptrace.ContextClientTrace(r.Context())
	trace.GetConn(r.URL.Host)
	took, ok := m(r.URL.Host)
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	trace.GotConn(httptrace.GotConnInfo{})
	time.Sleep(took) // by the test's own clock
	trace.GotFirstResponseByte()
	return &http.Response{StatusCode: 204, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// crowd has workers send requests, and returns who has answered how many.
func (w *world) crowd(t testing.TB, workers, requests int) map[string]int {
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range requests / workers {
				r := httptest.NewRequest("GET", "/", nil)
				resp, err := w.balancer.Exchange(r, netip.Addr{}, w.to).RoundTripper().RoundTrip(r)
				mu.Lock()
				if err != nil {
					t.Error(err)
					got["failed"]++
				} else {
					got[resp.Request.URL.Host]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return got
}

// TestSpread sends 10,000 requests of 64 clients to ten equal endpoints whose latencies vary.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := model(func(string) (time.Duration, bool) {
			return time.Duration(rand.ExpFloat64() * float64(3*time.Millisecond)), true
		})
		w := newWorldOf(balance.Config{Transports: transports{m, m}}, addrs(10)...)
		least, most := 1<<30, 0
		for _, n := range w.crowd(t, 64, 10000) {
			least, most = min(least, n), max(most, n)
		}
		if float64(most)/float64(least) > 1.1 {
			t.Errorf("shares are between %d and %d", least, most)
		}
	})
}

// TestDeadEndpointReturns has an endpoint refuse connections for a while.
func TestDeadEndpointReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		dead := addrs(10)[3].String()
		m := model(func(host string) (time.Duration, bool) {
			return 5 * time.Millisecond, host != dead || time.Since(began) > 20*time.Second
		})
		w := newWorldOf(balance.Config{Transports: transports{m, m}}, addrs(10)...)
		got := w.crowd(t, 4, 4*3800) // 19 seconds
		if got["failed"] > 0 || got[dead] > 0 || time.Since(began) > 20*time.Second {
			t.Fatalf("%v after %v", got, time.Since(began))
		}
		if n := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_retries_total", "connect"); n < 2 || n > 30 {
			t.Errorf("%v tries at the dead endpoint", n)
		}
		if n := metric(t, w.balancer, "varco_apiserver_proxy_endpoints_ejected", ""); n != 1 {
			t.Errorf("%v endpoints are left out", n)
		}
		w.crowd(t, 4, 4*8000) // 40 seconds
		got = w.crowd(t, 4, 4*1000)
		if share := got[dead]; share < 350 || share > 450 {
			t.Errorf("long after its return it has %d of 4000 requests", share)
		}
	})
}

// TestPools wants pools that nobody uses to be dropped, and their number to be bounded.
func TestPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := model(func(string) (time.Duration, bool) { return 0, true })
		held := &canned{http.Response{StatusCode: 200, Header: http.Header{}}}
		w := newWorldOf(balance.Config{Transports: transports{m, held}}, addrs(2)...)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.balancer.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		pools := func() float64 { return metric(t, w.balancer, "varco_apiserver_proxy_endpoint_pools", "") }
		r := httptest.NewRequest("GET", "/", nil)
		resp, err := w.balancer.Exchange(r, netip.Addr{}, w.to).Upgrade().RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 5000 {
			w.to = destination(addrs(2)...)
			w.to.Key = fmt.Sprint(n)
			w.crowd(t, 1, 1)
		}
		if n := pools(); n != 4096 {
			t.Errorf("%v pools for 5000 destinations", n)
		}
		time.Sleep(10 * time.Minute) // by the test's own clock
		if n := pools(); n != 1 {
			t.Errorf("%v pools are left of which one has a request in flight", n)
		}
		resp.Body.Close()
		time.Sleep(time.Minute) // by the test's own clock
		if n := pools(); n != 0 {
			t.Errorf("%v pools are left that nobody uses", n)
		}
		cancel()
		wg.Wait()
	})
}

// TestSchemesAreApart wants a wrong scheme to do no harm to those with the right one.
func TestSchemesAreApart(t *testing.T) {
	m := model(func(string) (time.Duration, bool) { return 0, false })
	w := newWorldOf(balance.Config{Transports: transports{m, m}}, addrs(3)...)
	wrong := destination(addrs(3)...)
	wrong.Scheme = "https"
	for range 20 {
		r := httptest.NewRequest("GET", "/", nil)
		_, err := w.balancer.Exchange(r, netip.Addr{}, wrong).RoundTripper().RoundTrip(r)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	if n := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_ejections_total", ""); n == 0 {
		t.Fatal("nothing was left out")
	}
	w.balancer.Exchange(httptest.NewRequest("GET", "/", nil), netip.Addr{}, w.to)
	if n := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_pools", ""); n != 2 {
		t.Errorf("%v pools for two schemes", n)
	}
}

// TestErrorsNameEndpoints wants errors to say whom they are about.
func TestErrorsNameEndpoints(t *testing.T) {
	bad, _ := faults["closed after the header"](t)
	w := newWorld(t, bad)
	if _, _, err := w.ask(t, "POST", nil); err == nil || !strings.Contains(err.Error(), bad.String()) {
		t.Errorf("got %v, which does not name %v", err, bad)
	}
}
