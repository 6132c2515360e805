package apiserverlb

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"varco.dev/internal/backend/health"
)

// closed counts connections that were closed for the sake of their clients, by reason. The zero value is ready.
type closed struct {
	mu    sync.Mutex // guards the map
	count map[string]int
}

func (c *closed) add(reason string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[string]int{}
	}
	c.count[reason] += n
}

func (c *closed) of(reason string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[reason]
}

// metric is a line of the table of metrics.
type metric struct {
	name, help string
	labels     []string
	kind       prometheus.ValueType
}

func (m metric) desc() *prometheus.Desc {
	return prometheus.NewDesc("varco_apiserver_lb_"+m.name, m.help, m.labels, nil)
}

// The metrics that have one value for each backend.
func backendMetrics() []metric {
	of := []string{"backend"}
	return []metric{
		{"backend_connections", "Connections that are open with a backend.", of, prometheus.GaugeValue},
		{"backend_requests", "Requests that are being passed on to a backend, in mode https.", of, prometheus.GaugeValue},
		{"backend_received_bytes_total", "Bytes that came from a backend.", of, prometheus.CounterValue},
		{"backend_sent_bytes_total", "Bytes that went to a backend.", of, prometheus.CounterValue},
		{"backend_check_seconds", "How long the last answer to a health check took.", of, prometheus.GaugeValue},
		{"backend_usable", "Whether new connections may go to a backend: it is up, or the others are no better, and it is still found.", of, prometheus.GaugeValue},
		{"backend_fail_open", "Whether a backend is used although it is not up, since most are like that.", of, prometheus.GaugeValue},
	}
}

func stateMetric() metric {
	return metric{"backend_state", "1 for the state that a backend is in: Up, Draining or Down.", []string{"backend", "state"}, prometheus.GaugeValue}
}

// The metrics of the relay.
func relayMetrics() []metric {
	return []metric{
		{"connections", "Connections of clients that are open, in mode tcp.", nil, prometheus.GaugeValue},
		{"accepted_total", "Connections of clients that were taken in, those beyond the limits included.", nil, prometheus.CounterValue},
		{"accept_errors_total", "Failed attempts to take in a connection.", nil, prometheus.CounterValue},
		{"retries_total", "Attempts to reach another backend for a client, after one that failed.", nil, prometheus.CounterValue},
		{"replays_total", "TLS hellos of clients that were sent to another backend, after one that did not answer.", nil, prometheus.CounterValue},
		{"hello_timeouts_total", "TLS hellos that a backend did not answer in time.", nil, prometheus.CounterValue},
		{"received_bytes_total", "Bytes that came from clients.", nil, prometheus.CounterValue},
		{"sent_bytes_total", "Bytes that went to clients.", nil, prometheus.CounterValue},
		{"spliced_bytes_total", "Bytes that were moved without entering the process (splice(2)).", nil, prometheus.CounterValue},
	}
}

// The metrics of mode https.
func requestMetrics() []metric {
	return []metric{
		{"https_connections", "Connections of clients that are open, in mode https.", nil, prometheus.GaugeValue},
		{"https_requests", "Requests that are passed on, upgraded connections included.", nil, prometheus.GaugeValue},
		{"https_upgrades", "Upgraded connections that are open.", nil, prometheus.GaugeValue},
		{"https_resent_unsent_total", "Requests sent to another backend since nothing of them had been sent.", nil, prometheus.CounterValue},
		{"https_resent_idempotent_total", "Requests sent to another backend since the first broke before it answered.", nil, prometheus.CounterValue},
		{"https_resent_busy_total", "Requests sent to another backend since the first answered 429.", nil, prometheus.CounterValue},
		{"https_lost_total", "Requests that were broken off since their backend went down.", nil, prometheus.CounterValue},
		{"https_vanished_total", "Connections of clients that were reset, since they acknowledged nothing any more.", nil, prometheus.CounterValue},
	}
}

func turnedAwayMetric() metric {
	return metric{"turned_away_total", "Connections reset because of a limit: connections or perSource.", []string{"limit"}, prometheus.CounterValue}
}

func endedMetric() metric {
	return metric{"ended_total", "Connections that have ended, by how.", []string{"reason"}, prometheus.CounterValue}
}

func movedMetric() metric {
	return metric{"moved_total", "Connections that were closed so that their clients come back elsewhere, by why.", []string{"reason"}, prometheus.CounterValue}
}

// collector is a prometheus.Collector of a balancer.
type collector struct{ lb *LB }

// Collector returns the metrics.
func (lb *LB) Collector() prometheus.Collector { return collector{lb} }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	all := append(slices.Concat(backendMetrics(), relayMetrics(), requestMetrics()), stateMetric(), turnedAwayMetric(), endedMetric(), movedMetric())
	for _, m := range all {
		out <- m.desc()
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	emit := func(m metric, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.desc(), m.kind, v, labels...)
	}
	for _, b := range *c.lb.backends.Load() {
		collectBackend(emit, b)
	}
	s := c.lb.relay.Stats()
	values := []uint64{uint64(s.Open), s.Accepted, s.AcceptErrors, s.Retried, s.Replayed, s.HelloTimeouts, s.In, s.Out, s.Spliced}
	for i, m := range relayMetrics() {
		emit(m, float64(values[i]))
	}
	refused, crowded := c.collectRequests(emit)
	emit(turnedAwayMetric(), float64(s.OverLimit)+refused, "connections")
	emit(turnedAwayMetric(), float64(s.OverSource)+crowded, "perSource")
	for reason, n := range s.Ended {
		emit(endedMetric(), float64(n), reason.String())
	}
	for _, reason := range movedReasons() {
		emit(movedMetric(), float64(c.lb.closed.of(reason)), reason)
	}
}

// collectRequests returns how many connections mode https has turned away, for each of the limits.
func (c collector) collectRequests(emit func(metric, float64, ...string)) (refused, crowded float64) {
	if c.lb.https == nil {
		return 0, 0
	}
	s := c.lb.https.Stats()
	values := []int64{int64(s.Connections), int64(s.Requests), int64(s.Upgrades), s.Unsent, s.Idempotent, s.TurnedAway, s.Lost, s.Vanished}
	for i, m := range requestMetrics() {
		emit(m, float64(values[i]))
	}
	return float64(s.Refused), float64(s.Crowded)
}

func collectBackend(emit func(metric, float64, ...string), b Backend) {
	name := b.Addr.String()
	values := []float64{
		float64(b.Traffic.Sessions), float64(b.Requests.Requests), float64(b.Traffic.Out), float64(b.Traffic.In), b.Latency.Seconds(), number(b.takes()), number(b.Open),
	}
	for i, m := range backendMetrics() {
		emit(m, values[i], name)
	}
	for _, s := range []health.State{health.Up, health.Draining, health.Down} {
		emit(stateMetric(), number(b.State == s), name, s.String())
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
