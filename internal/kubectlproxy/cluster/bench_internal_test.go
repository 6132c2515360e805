package cluster

import (
	"log/slog"
	"net/http"
	"testing"

	"k8s.io/client-go/rest"
)

// BenchmarkRoundTrip is what a request costs between the proxy and net/http's transport.
func BenchmarkRoundTrip(b *testing.B) {
	owner := New(Config{Log: slog.New(slog.DiscardHandler)})
	c, err := newCluster(owner, "", "main", &rest.Config{Host: "https://kubernetes", BearerToken: "t", UserAgent: "varco"})
	if err != nil {
		b.Fatal(err)
	}
	g := c.now.Load()
	g.base[ordinary] = roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
	})
	if g, err = g.wrapped(c.transport); err != nil {
		b.Fatal(err)
	}
	c.now.Store(g)
	r, err := http.NewRequest(http.MethodGet, "https://kubernetes/api/v1/pods", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header = http.Header{"User-Agent": {"k"}, "Accept": {"application/json"}, "X-Forwarded-For": {"127.0.0.1"}}
	for b.Loop() {
		t, err := c.Target(r, false)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := t.RoundTripper.RoundTrip(r); err != nil {
			b.Fatal(err)
		}
	}
}
