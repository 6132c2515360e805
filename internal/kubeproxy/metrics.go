package kubeproxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varco.dev/internal/reconcile"
)

// metrics are those of the loop, under upstream's names and labels. One transaction serves both families, so they have the
// same values.
type metrics struct {
	registry *prometheus.Registry
	duration *prometheus.HistogramVec
	full     *prometheus.HistogramVec
	partial  *prometheus.HistogramVec
	last     *prometheus.GaugeVec
	failures *prometheus.CounterVec
}

// family is upstream's label, of which these are the values.
const family = "ip_family"

func families() []string { return []string{"IPv4", "IPv6"} }

func newMetrics() *metrics {
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 18) // 0.1 ms to 13 s
	label := []string{family}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, label)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		duration: histogram("kubeproxy_sync_proxy_rules_duration_seconds", "Time taken to apply Services to the kernel."),
		full:     histogram("kubeproxy_sync_full_proxy_rules_duration_seconds", "Time taken to apply all Services anew."),
		partial:  histogram("kubeproxy_sync_partial_proxy_rules_duration_seconds", "Time taken to apply what changed."),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Help: "When Services were last applied, Unix time.",
		}, label),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", Help: "Transactions that the kernel refused.",
		}, label),
	}
	m.registry.MustRegister(m.duration, m.full, m.partial, m.last, m.failures,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, f := range families() {
		m.failures.WithLabelValues(f) // so that it is there, as 0, before the first one
	}
	return m
}

func (m *metrics) observe(r reconcile.Result) {
	now := float64(time.Now().UnixMicro()) / 1e6
	for _, f := range families() {
		if r.Err != nil {
			m.failures.WithLabelValues(f).Inc()
			continue
		}
		seconds := r.Took.Seconds()
		m.duration.WithLabelValues(f).Observe(seconds)
		if r.Full {
			m.full.WithLabelValues(f).Observe(seconds)
		} else {
			m.partial.WithLabelValues(f).Observe(seconds)
		}
		m.last.WithLabelValues(f).Set(now)
	}
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
