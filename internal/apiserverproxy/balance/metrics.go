package balance

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a balancer counts.
type metrics struct {
	tries, ejections prometheus.Counter
	retriesBy        *prometheus.CounterVec
	retries          [verdicts]prometheus.Counter // of retriesBy
	pools            *prometheus.Desc
	ejected          *prometheus.Desc
	inFlight         *prometheus.Desc
}

const prefix = "varco_apiserver_proxy_"

func newMetrics() metrics {
	m := metrics{
		tries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "endpoint_tries_total", Help: "Requests sent, or to be sent, to an endpoint; those sent again count again.",
		}),
		ejections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "endpoint_ejections_total", Help: "Endpoints that were left out for a while because they failed.",
		}),
		retriesBy: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "endpoint_retries_total",
			Help: "Requests that were sent again, by why they might be: no connection could be made (connect), one broke before anything was sent " +
				"(unsent; stale if it had been used before), or the method is idempotent.",
		}, []string{"why"}),
		pools:    prometheus.NewDesc(prefix+"endpoint_pools", "Destinations whose endpoints are remembered.", nil, nil),
		ejected:  prometheus.NewDesc(prefix+"endpoints_ejected", "Endpoints that are left out now.", nil, nil),
		inFlight: prometheus.NewDesc(prefix+"endpoint_requests_in_flight", "Requests that endpoints of pools work on, upgraded connections included.", nil, nil),
	}
	for v := no + 1; v < verdicts; v++ {
		m.retries[v] = m.retriesBy.WithLabelValues(v.String())
	}
	return m
}

// Describe implements prometheus.Collector.
func (b *Balancer) Describe(ch chan<- *prometheus.Desc) {
	m := &b.metrics
	m.tries.Describe(ch)
	m.ejections.Describe(ch)
	m.retriesBy.Describe(ch)
	ch <- m.pools
	ch <- m.ejected
	ch <- m.inFlight
}

// Collect implements prometheus.Collector.
func (b *Balancer) Collect(ch chan<- prometheus.Metric) {
	m := &b.metrics
	m.tries.Collect(ch)
	m.ejections.Collect(ch)
	m.retriesBy.Collect(ch)
	pools, ejected, inFlight := b.count()
	gauge := func(d *prometheus.Desc, n int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	gauge(m.pools, pools)
	gauge(m.ejected, ejected)
	gauge(m.inFlight, inFlight)
}

// count adds up all pools.
func (b *Balancer) count() (pools, ejected, inFlight int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, p := range b.pools {
		s := p.Stats()
		ejected += s.Ejected
		inFlight += s.InFlight
	}
	return len(b.pools), ejected, inFlight
}
