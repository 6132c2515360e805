package kubeproxy

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varco.dev/internal/reconcile"
)

// metrics are those of the loop, under upstream's names where the meaning is the same.
type metrics struct {
	registry *prometheus.Registry
	duration prometheus.Histogram
	full     prometheus.Histogram
	partial  prometheus.Histogram
	last     prometheus.Gauge
	failures prometheus.Counter
}

func newMetrics() *metrics {
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 18) // 0.1 ms to 13 s
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		duration: histogram("kubeproxy_sync_proxy_rules_duration_seconds", "Time taken to apply Services to the kernel."),
		full:     histogram("kubeproxy_sync_full_proxy_rules_duration_seconds", "Time taken to apply all Services anew."),
		partial:  histogram("kubeproxy_sync_partial_proxy_rules_duration_seconds", "Time taken to apply what changed."),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Help: "When Services were last applied, Unix time.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", Help: "Transactions that the kernel refused.",
		}),
	}
	m.registry.MustRegister(m.duration, m.full, m.partial, m.last, m.failures,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(r reconcile.Result) {
	if r.Err != nil {
		m.failures.Inc()
		return
	}
	seconds := r.Took.Seconds()
	m.duration.Observe(seconds)
	if r.Full {
		m.full.Observe(seconds)
	} else {
		m.partial.Observe(seconds)
	}
	m.last.SetToCurrentTime()
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
