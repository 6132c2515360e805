package kubeproxy

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// loopMetrics are those of applying changes.
type loopMetrics struct {
	duration, full, partial, programming *prometheus.HistogramVec
	last                                 *prometheus.GaugeVec
	failures, cleanups                   *prometheus.CounterVec
}

// applyBuckets are upstream's, 1 ms to 16 s, and three below, because most changes take less.
func applyBuckets() []float64 { return prometheus.ExponentialBuckets(0.000125, 2, 18) }

// programmingBuckets are upstream's, 0.25 s to 5 minutes, and three below.
func programmingBuckets() []float64 {
	return slices.Concat([]float64{0.01, 0.05, 0.1}, prometheus.LinearBuckets(0.25, 0.25, 2), prometheus.LinearBuckets(1, 1, 59),
		prometheus.LinearBuckets(60, 5, 12), prometheus.LinearBuckets(120, 30, 7))
}

func newLoopMetrics(r prometheus.Registerer, families []string) loopMetrics {
	label := []string{family}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubeproxy_" + name, Help: help, Buckets: buckets}, label)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_" + name, Help: help}, label)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubeproxy_" + name, Help: help}, label)
		for _, f := range families {
			v.WithLabelValues(f) // so that it is there, as 0, before the first one
		}
		return v
	}
	m := loopMetrics{
		duration: histogram("sync_proxy_rules_duration_seconds", "Time taken to apply Services to the kernel.", applyBuckets()),
		full:     histogram("sync_full_proxy_rules_duration_seconds", "Time taken to apply all Services anew.", applyBuckets()),
		partial:  histogram("sync_partial_proxy_rules_duration_seconds", "Time taken to apply what changed.", applyBuckets()),
		programming: histogram("network_programming_duration_seconds",
			"Time from a change of a pod or Service to when the kernel follows it, as far as EndpointSlices tell.", programmingBuckets()),
		last:     gauge("sync_proxy_rules_last_timestamp_seconds", "When Services were last applied, Unix time."),
		failures: counter("sync_proxy_rules_nftables_sync_failures_total", "Transactions that the kernel refused."),
		cleanups: counter("sync_proxy_rules_nftables_cleanup_failures_total",
			"Leftovers that could not be removed. Always 0: they go in the same transaction."),
	}
	r.MustRegister(m.duration, m.full, m.partial, m.programming, m.last, m.failures, m.cleanups)
	return m
}

func (m loopMetrics) observe(r reconcile.Result, families []string) {
	for _, f := range families {
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
		m.last.WithLabelValues(f).SetToCurrentTime()
	}
}

// programmed takes how long a change took. It began by the clock of another machine, or by what anybody wrote into an
// annotation, so it may end before that; a histogram whose sum goes down is of no use.
func (m loopMetrics) programmed(took time.Duration, families []string) {
	for _, f := range families {
		m.programming.WithLabelValues(f).Observe(max(0, took.Seconds()))
	}
}

// conntrackMetrics are those of the cleaner.
type conntrackMetrics struct {
	duration *prometheus.HistogramVec
	deleted  *prometheus.CounterVec
}

func newConntrackMetrics(r prometheus.Registerer, families []string) conntrackMetrics {
	m := conntrackMetrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubeproxy_conntrack_reconciler_sync_duration_seconds", Help: "Time taken to look for stale connections.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{family}),
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubeproxy_conntrack_reconciler_deleted_entries_total", Help: "Stale connections that were deleted.",
		}, []string{family}),
	}
	for _, f := range families {
		m.deleted.WithLabelValues(f)
	}
	r.MustRegister(m.duration, m.deleted)
	return m
}

// portCensus knows the ports that are served, and which of them have endpoints but none on this node.
type portCensus struct {
	of      map[service.Key]lacks
	noLocal map[policyOf]int
}

// lacks tells which policies of a port are Local without a local endpoint.
type lacks struct{ internal, external bool }

type policyOf struct {
	family   service.Family
	external bool
}

func newPortCensus() portCensus {
	return portCensus{of: map[service.Key]lacks{}, noLocal: map[policyOf]int{}}
}

func (p *portCensus) apply(c service.Changes, full bool) {
	if full {
		*p = newPortCensus()
	}
	for _, change := range c.Ports {
		k := change.Key()
		p.count(k.Family, p.of[k], -1)
		delete(p.of, k)
		if change.New != nil {
			p.of[k] = lacking(change.New)
			p.count(k.Family, p.of[k], 1)
		}
	}
}

func (p *portCensus) count(f service.Family, l lacks, n int) {
	if l.internal {
		p.noLocal[policyOf{f, false}] += n
	}
	if l.external {
		p.noLocal[policyOf{f, true}] += n
	}
}

func lacking(p *service.Port) lacks {
	none := p.HasEndpoints && len(p.Local) == 0
	return lacks{internal: none && p.Internal == service.PolicyLocal, external: none && p.External == service.PolicyLocal}
}
