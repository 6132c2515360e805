package kubeproxy

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"varco.dev/internal/service"
)

// localhostMetrics are those of NodePorts at localhost that are served in user space. Those of IPv4 are always 0: the
// kernel serves them.
type localhostMetrics struct {
	listeners *prometheus.GaugeVec
	failures  *prometheus.CounterVec
}

func newLocalhostMetrics(r prometheus.Registerer, families []string) localhostMetrics {
	m := localhostMetrics{
		listeners: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubeproxy_nftables_localhost_nodeport_listeners",
			Help: "NodePorts that are served at localhost in user space.",
		}, []string{family}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubeproxy_nftables_localhost_nodeport_listener_creation_failures_total",
			Help: "NodePorts at localhost that could not be listened at.",
		}, []string{family}),
	}
	for _, f := range families {
		m.listeners.WithLabelValues(f)
		m.failures.WithLabelValues(f)
	}
	r.MustRegister(m.listeners, m.failures)
	return m
}

// localhosts takes how many NodePorts are served at localhost in user space.
func (m *metrics) localhosts(n int) {
	if v6 := familyName(service.IPv6); slices.Contains(m.families, v6) {
		m.localhost.listeners.WithLabelValues(v6).Set(float64(n))
	}
}

// localhostFailed counts a NodePort that could not be listened at.
func (m *metrics) localhostFailed(error) {
	if v6 := familyName(service.IPv6); slices.Contains(m.families, v6) {
		m.localhost.failures.WithLabelValues(v6).Inc()
	}
}
