package kubectlproxy

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varco.dev/internal/kubectlproxy/origin"
	"varco.dev/internal/observe"
)

// metrics are what the proxy counts.
type metrics struct {
	registry *prometheus.Registry
	access   *observe.AccessMetrics
	refused  *prometheus.CounterVec
}

func newMetrics(version string) metrics {
	m := metrics{
		registry: prometheus.NewRegistry(),
		access:   observe.NewAccessMetrics(),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "varco_kubectl_proxy_refused_total", Help: "Requests that were refused, by the flag that decides.",
		}, []string{"rule"}),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		observe.BuildInfo(version), m.access, m.refused,
	)
	return m
}

// follow has the tunnels to Services counted.
func (m metrics) follow(o *origin.Origins) {
	gauge := func(name, help string, value func() int) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
	}
	gauge("varco_kubectl_proxy_tunnels_open", "Tunnels to pods that are open.", func() int { tunnels, _ := o.Open(); return tunnels })
	gauge("varco_kubectl_proxy_tunnel_connections_open", "Connections that are open in tunnels.", func() int { _, conns := o.Open(); return conns })
}

func (m metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
