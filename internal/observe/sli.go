package observe

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// sli counts the results of health checks, as /metrics/slis of every Kubernetes component does (KEP-3466).
type sli struct {
	last    *prometheus.GaugeVec
	total   *prometheus.CounterVec
	handler http.Handler
}

func newSLI(started time.Time) *sli {
	s := &sli{
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubernetes_healthcheck", Help: "Result of a health check: 1 for success.",
		}, []string{"name", "type"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubernetes_healthchecks_total", Help: "Results of all health checks.",
		}, []string{"name", "type", "status"}),
	}
	start := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "process_start_time_seconds", Help: "When the process was started, Unix time.",
	}, func() float64 { return float64(started.UnixMilli()) / 1000 })
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.last, s.total, start)
	s.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return s
}

// ServeHTTP answers the counts. DELETE sets them back.
func (s *sli) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		s.last.Reset()
		s.total.Reset()
		plainText(w)
		fmt.Fprintln(w, "metrics reset")
		return
	}
	s.handler.ServeHTTP(w, r)
}

// ping returns a health check that succeeds whenever the process can answer, and counts it.
func (s *sli) ping(kind string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.last.WithLabelValues("ping", kind).Set(1)
		s.total.WithLabelValues("ping", kind, "success").Inc()
		plainText(w)
		if !r.URL.Query().Has("verbose") {
			fmt.Fprint(w, "ok")
			return
		}
		fmt.Fprintf(w, "[+]ping ok\n%s check passed\n", kind)
	})
}
