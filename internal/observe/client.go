package observe

import (
	"context"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/metrics"
)

// ClientMetrics returns the metrics of requests to the API server, under the names of Kubernetes' components, and has
// client-go count in them. client-go takes the first call of a process; those of later calls stay empty. They may be
// registered more than once, one registry after the other.
func ClientMetrics() prometheus.Collector {
	seconds := []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}
	bytes := []float64{64, 256, 512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"verb", "host"})
	}
	counter := func(name, help, verb string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"code", verb, "host"})
	}
	latency := histogram("rest_client_request_duration_seconds", "Time that requests to the API server took.", seconds)
	limiter := histogram("rest_client_rate_limiter_duration_seconds", "Time that requests waited for the client's own limit.", seconds)
	sent := histogram("rest_client_request_size_bytes", "Size of requests to the API server.", bytes)
	received := histogram("rest_client_response_size_bytes", "Size of answers of the API server.", bytes)
	results := counter("rest_client_requests_total", "Requests to the API server.", "method")
	retries := counter("rest_client_request_retries_total", "Requests to the API server that were repeated.", "verb")
	metrics.Register(metrics.RegisterOpts{
		RequestLatency: latencies{latency}, RateLimiterLatency: latencies{limiter},
		RequestSize: sizes{sent}, ResponseSize: sizes{received},
		RequestResult: counts{results}, RequestRetry: counts{retries},
	})
	return collectors{latency, limiter, sent, received, results, retries}
}

// collectors are several as one.
type collectors []prometheus.Collector

// Describe implements prometheus.Collector.
func (cs collectors) Describe(out chan<- *prometheus.Desc) {
	for _, c := range cs {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (cs collectors) Collect(out chan<- prometheus.Metric) {
	for _, c := range cs {
		c.Collect(out)
	}
}

type latencies struct{ *prometheus.HistogramVec }

// Observe implements client-go's LatencyMetric.
func (l latencies) Observe(_ context.Context, verb string, u url.URL, took time.Duration) {
	l.WithLabelValues(verb, u.Host).Observe(took.Seconds())
}

type sizes struct{ *prometheus.HistogramVec }

// Observe implements client-go's SizeMetric.
func (s sizes) Observe(_ context.Context, verb, host string, size float64) {
	s.WithLabelValues(verb, host).Observe(size)
}

type counts struct{ *prometheus.CounterVec }

// Increment implements client-go's ResultMetric.
func (c counts) Increment(_ context.Context, code, method, host string) {
	c.WithLabelValues(code, method, host).Inc()
}

// IncrementRetry implements client-go's RetryMetric.
func (c counts) IncrementRetry(_ context.Context, code, method, host string) {
	c.WithLabelValues(code, method, host).Inc()
}

// BuildInfo returns the metric kubernetes_build_info of this binary. Its version is Varco's.
func BuildInfo(version string) prometheus.Collector {
	major, minor := versionNumbers(version)
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubernetes_build_info", Help: "Always 1; the labels tell what runs.",
		ConstLabels: prometheus.Labels{
			"major": major, "minor": minor, "git_version": version, "git_commit": "", "git_tree_state": "", "build_date": "",
			"go_version": runtime.Version(), "compiler": runtime.Compiler, "platform": runtime.GOOS + "/" + runtime.GOARCH,
		},
	})
	g.Set(1)
	return g
}

// versionNumbers reads v1.2.3; both are empty where the version is another word, such as "devel".
func versionNumbers(version string) (major, minor string) {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 2 {
		return "", ""
	}
	for _, p := range parts[:2] {
		if _, err := strconv.Atoi(p); err != nil {
			return "", ""
		}
	}
	return parts[0], parts[1]
}
