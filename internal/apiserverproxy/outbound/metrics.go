package outbound

import "github.com/prometheus/client_golang/prometheus"

// metrics are what an Outbound counts.
type metrics struct {
	refused *prometheus.CounterVec
	dials   *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varco_apiserver_proxy_refused_addresses_total",
			Help: "Addresses of targets that were not dialled, by the reason.",
		}, []string{"reason"}),
		dials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varco_apiserver_proxy_dials_total",
			Help: "Connections to targets that were made (ok) or not (failed, refusals included).",
		}, []string{"result"}),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	m.refused.Describe(to)
	m.dials.Describe(to)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.refused.Collect(to)
	m.dials.Collect(to)
}
