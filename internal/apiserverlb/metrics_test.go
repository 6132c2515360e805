package apiserverlb_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// scrape returns the metrics as Prometheus gets them.
func (b *balancer) scrape() string {
	b.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b.Collector())
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		b.t.Errorf("metrics: %d %s", w.Code, w.Body.String())
	}
	return w.Body.String()
}

// TestMetricsAreProper has the metrics of both modes judged by Prometheus' own rules.
func TestMetricsAreProper(t *testing.T) {
	s := startServer(t)
	c, _ := requestSettings(t, s)
	b := start(t, c, s)
	b.proven(s)
	problems, err := promlint.New(bytes.NewReader([]byte(b.scrape()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestMetricsForget has backends come and go: those that are gone have no line any more.
func TestMetricsForget(t *testing.T) {
	servers := []*server{startServer(t), startServer(t), startServer(t)}
	c := settings(t, servers[0])
	b := start(t, c, servers...)
	for i := range servers {
		next := settings(t, servers[i])
		next.Listeners, next.Health = c.Listeners, c.Health
		if err := b.Apply(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		b.await("the backend is used", 5*time.Second, func() bool { return first(b.once()) == servers[i].addr })
	}
	named := func() []string {
		var out []string
		for _, m := range regexp.MustCompile(`backend="([^"]*)"`).FindAllStringSubmatch(b.scrape(), -1) {
			out = append(out, m[1])
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	b.await("only the last backend has metrics", 5*time.Second, func() bool { return strings.Join(named(), " ") == servers[2].addr })
}
