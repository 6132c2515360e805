package observe

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Codes that are counted by themselves. Others are not codes, and are counted as 0.
const (
	firstCode = 100
	lastCode  = 599
)

// AccessMetrics are the metrics of Access, a prometheus.Collector.
type AccessMetrics struct {
	collectors
	total              *prometheus.CounterVec
	counters           [len(methods) + 1][lastCode - firstCode + 2]atomic.Pointer[prometheus.Counter] // of total, once in use
	durations          prometheus.Histogram
	inFlight, upgrades atomic.Int64
	sent, received     atomic.Int64 // bytes of bodies and upgraded connections
}

// NewAccessMetrics returns metrics that are all zero.
func NewAccessMetrics() *AccessMetrics {
	m := &AccessMetrics{}
	m.total = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "varco_http_requests_total", Help: "Requests that were answered, by code and method.",
	}, []string{"code", "method"})
	m.durations = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "varco_http_request_duration_seconds", Help: "Time that answers took to their end, without watches and upgrades.",
		Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
	})
	gauge := func(name, help string, of *atomic.Int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(of.Load()) })
	}
	counter := func(name, help string, of *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(of.Load()) })
	}
	m.collectors = collectors{
		m.total, m.durations,
		gauge("varco_http_requests_in_flight", "Requests that are being answered, watches and upgrades included.", &m.inFlight),
		gauge("varco_http_upgrades_open", "Upgraded connections that are open.", &m.upgrades),
		counter("varco_http_sent_bytes_total", "Bytes of answers and upgraded connections that went to clients.", &m.sent),
		counter("varco_http_received_bytes_total", "Bytes of requests' bodies and upgraded connections that came from clients.", &m.received),
	}
	return m
}

// methods are those that are counted by themselves. Clients may invent others, which are counted as one.
var methods = [...]string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
	http.MethodConnect, http.MethodTrace,
}

// requests returns the counter of a code and a method.
func (m *AccessMetrics) requests(code int, method string) prometheus.Counter {
	row, column := len(methods), code-firstCode
	for i, known := range methods {
		if known == method {
			row = i
			break
		}
	}
	if code < firstCode || code > lastCode {
		code, column = 0, lastCode-firstCode+1
	}
	if known := m.counters[row][column].Load(); known != nil {
		return *known
	}
	if row == len(methods) {
		method = "other"
	}
	c := m.total.WithLabelValues(strconv.Itoa(code), method)
	m.counters[row][column].Store(&c)
	return c
}
