package kubeproxy

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"varco.dev/internal/service"
)

// Bounds of reading the kernel's counters for metrics.
const (
	countsMaxAge  = time.Second     // whoever asks more often gets the same numbers
	countsTimeout = 5 * time.Second // of one reading
)

// ServiceCount is what the kernel has counted of one Service port. It begins again at 0 where the kernel's elements are
// written anew.
type ServiceCount struct {
	Key                         service.Key
	Connections, Packets, Bytes uint64 // of new connections; of both directions
}

// CountFunc reads the counters of all Service ports from the kernel. A port that is not among them has counted nothing.
// It may block, and is not called by two at a time.
type CountFunc func(context.Context) ([]ServiceCount, error)

// countCollector shows the counters of the Service ports.
type countCollector struct {
	read    CountFunc
	traffic bool
	knows   func(service.Key) bool // ports that are gone are forgotten

	connections, packets, bytes *prometheus.Desc

	mu    sync.Mutex // guards the fields below
	at    time.Time  // of the last reading
	total map[service.Key]*tally
}

// tally keeps a port's counters from going backwards: base is what was counted before the kernel began anew.
type tally struct{ base, last ServiceCount }

func newCountCollector(read CountFunc, traffic bool, knows func(service.Key) bool) *countCollector {
	labels := []string{"namespace", "service", "port", "protocol", family}
	desc := func(what, help string) *prometheus.Desc {
		return prometheus.NewDesc("varco_kubeproxy_service_"+what+"_total", help, labels, nil)
	}
	return &countCollector{
		read: read, traffic: traffic, knows: knows, total: map[service.Key]*tally{},
		connections: desc("connections", "Connections to a Service port that were sent to an endpoint."),
		packets:     desc("packets", "Packets of connections to a Service port, both directions."),
		bytes:       desc("bytes", "Bytes of connections to a Service port, both directions, with IP headers."),
	}
}

// Describe implements prometheus.Collector.
func (c *countCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.connections
	if c.traffic {
		out <- c.packets
		out <- c.bytes
	}
}

// Collect implements prometheus.Collector. If the kernel cannot be read, the numbers are those of the last time.
func (c *countCollector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || time.Since(c.at) >= countsMaxAge {
		c.refresh()
	}
	for k, t := range c.total {
		labels := []string{k.Service.Namespace, k.Service.Name, k.Port, strings.ToUpper(k.Protocol.String()), familyName(k.Family)}
		show := func(d *prometheus.Desc, n uint64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
		}
		show(c.connections, t.base.Connections+t.last.Connections)
		if c.traffic {
			show(c.packets, t.base.Packets+t.last.Packets)
			show(c.bytes, t.base.Bytes+t.last.Bytes)
		}
	}
}

func (c *countCollector) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), countsTimeout)
	defer cancel()
	counts, err := c.read(ctx)
	c.at = time.Now()
	if err != nil {
		return
	}
	read := make(map[service.Key]bool, len(counts))
	for _, n := range counts {
		read[n.Key] = true
		if c.total[n.Key] == nil {
			c.total[n.Key] = &tally{}
		}
		c.total[n.Key].add(n)
	}
	for k, t := range c.total {
		switch {
		case !c.knows(k):
			delete(c.total, k)
		case !read[k]: // it has no elements now, say for want of endpoints
			t.add(ServiceCount{})
		}
	}
}

// add takes over a reading. Each counter that is smaller than before has begun anew.
func (t *tally) add(n ServiceCount) {
	next := func(base *uint64, last, now uint64) {
		if now < last {
			*base += last
		}
	}
	next(&t.base.Connections, t.last.Connections, n.Connections)
	next(&t.base.Packets, t.last.Packets, n.Packets)
	next(&t.base.Bytes, t.last.Bytes, n.Bytes)
	t.last = n
}

// stateCollector shows how many Service ports are served as they should be.
type stateCollector struct {
	states func() (done, pending, failed int)
	desc   *prometheus.Desc
}

func newStateDesc() *prometheus.Desc {
	return prometheus.NewDesc("varco_kubeproxy_ports",
		"Service ports by whether their newest state is applied (done), waits (pending), or was refused by the kernel (error).",
		[]string{"state"}, nil)
}

// Describe implements prometheus.Collector.
func (c stateCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(out chan<- prometheus.Metric) {
	done, pending, failed := c.states()
	show := func(state string, n int) {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), state)
	}
	show("done", done)
	show("pending", pending)
	show("error", failed)
}
