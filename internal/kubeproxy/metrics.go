package kubeproxy

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varco.dev/internal/observe"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// family is upstream's label, "IPv4" or "IPv6".
const family = "ip_family"

// metricsConfig is where the metrics get what they are not told. All is optional.
type metricsConfig struct {
	Families []service.Family        // that are served; none: both
	Version  string                  // of the binary
	Health   func() reconcile.Health // of the loop: whether a change waits
	// States counts the Service ports by whether their newest state is applied.
	States func() (done, pending, failed int)
	Counts CountFunc // of the kernel, per Service port
	// Traffic tells that Counts has packets and bytes too, not only connections.
	Traffic bool
	Client  prometheus.Collector // of requests to the API server
}

// metrics has upstream's names, labels and meaning where there are any. One transaction serves both families, so what is
// measured of it is the same for both.
type metrics struct {
	registry *prometheus.Registry
	started  time.Time
	config   metricsConfig
	families []string

	loop      loopMetrics
	conntrack conntrackMetrics
	localhost localhostMetrics
	answers   map[string]*prometheus.CounterVec // by path
	changes   map[object]prometheus.Counter
	noLocal   *prometheus.GaugeVec

	mu      sync.Mutex // guards the fields below
	pending map[object]int
	ports   portCensus
	begun   time.Time // the last attempt to apply something
}

// object is a kind of API object that Services are made of.
type object string

const (
	serviceObject  object = "service"
	endpointObject object = "endpoint"
)

// newMetrics returns metrics that are all registered.
func newMetrics(c metricsConfig) *metrics {
	if len(c.Families) == 0 {
		c.Families = []service.Family{service.IPv4, service.IPv6}
	}
	if c.Health == nil {
		c.Health = func() reconcile.Health { return reconcile.Health{} }
	}
	m := &metrics{
		registry: prometheus.NewRegistry(), started: time.Now(), config: c,
		pending: map[object]int{}, ports: newPortCensus(),
	}
	for _, f := range c.Families {
		m.families = append(m.families, familyName(f))
	}
	r := m.registry
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		observe.BuildInfo(c.Version))
	if c.Client != nil {
		r.MustRegister(c.Client)
	}
	m.loop = newLoopMetrics(r, m.families)
	m.conntrack = newConntrackMetrics(r, m.families)
	m.localhost = newLocalhostMetrics(r, m.families)
	m.answers = map[string]*prometheus.CounterVec{
		"/healthz": newAnswerCounter(r, "kubeproxy_proxy_healthz_total"),
		"/livez":   newAnswerCounter(r, "kubeproxy_proxy_livez_total"),
	}
	m.registerChanges(r)
	m.registerQueued(r)
	if c.States != nil {
		r.MustRegister(stateCollector{c.States, newStateDesc()})
	}
	if c.Counts != nil {
		r.MustRegister(newCountCollector(c.Counts, c.Traffic, m.knows))
	}
	return m
}

func familyName(f service.Family) string { return "IPv" + strconv.Itoa(int(f)) }

func newAnswerCounter(r prometheus.Registerer, name string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "Answers to probes, by HTTP status."}, []string{"code"})
	r.MustRegister(v)
	return v
}

func (m *metrics) registerChanges(r prometheus.Registerer) {
	m.changes = map[object]prometheus.Counter{}
	for _, o := range []object{serviceObject, endpointObject} {
		total := prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_" + string(o) + "_changes_total", Help: "Changes of " + string(o) + " objects.",
		})
		waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_" + string(o) + "_changes_pending",
			Help: "Changes of " + string(o) + " objects that wait to be applied.",
		}, func() float64 { return float64(m.waiting(o)) })
		r.MustRegister(total, waiting)
		m.changes[o] = total
	}
	m.noLocal = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
		Help: "Service ports with a Local traffic policy and endpoints, but none on this node.",
	}, []string{"traffic_policy", family})
	r.MustRegister(m.noLocal)
	m.showNoLocal()
}

func (m *metrics) registerQueued(r prometheus.Registerer) {
	for _, f := range m.families {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", Help: "When a change was last to be applied, Unix time.",
			ConstLabels: prometheus.Labels{family: f},
		}, m.lastQueued))
	}
}

// seen counts an object of a kind, "Service" or "EndpointSlice", that the API server has told of. It is called before the
// loop is. Other kinds are not counted.
func (m *metrics) seen(kind string) {
	o, counted := map[string]object{"Service": serviceObject, "EndpointSlice": endpointObject}[kind]
	if !counted {
		return
	}
	m.changes[o].Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.config.Health().PendingFrom.IsZero() {
		clear(m.pending) // what was counted is applied, or made no difference
	}
	m.pending[o]++
}

func (m *metrics) waiting(o object) int {
	if m.config.Health().PendingFrom.IsZero() {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pending[o]
}

// observe takes the result of one attempt to apply something.
func (m *metrics) observe(r reconcile.Result) {
	m.mu.Lock()
	m.begun = time.Now().Add(-r.Took)
	m.mu.Unlock()
	m.loop.observe(r, m.families)
}

// lastQueued returns since when a change waits or, if none does, when one was last taken up, as Unix time. Objects that
// change nothing for the proxy do not count: alerts take a change that is newer than what was last applied for one that
// is stuck.
func (m *metrics) lastQueued() float64 {
	at := m.config.Health().PendingFrom
	if at.IsZero() {
		m.mu.Lock()
		at = m.begun
		m.mu.Unlock()
	}
	if at.IsZero() {
		return 0
	}
	return float64(at.UnixNano()) / 1e9
}

// applied takes what was applied to the kernel: changes, or with full the whole state.
func (m *metrics) applied(c service.Changes, full bool) {
	for _, t := range c.Triggers {
		if t.After(m.started) { // an older change waited for this process, not for the proxy's work
			m.loop.programmed(time.Since(t), m.families)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ports.apply(c, full)
	m.showNoLocal()
}

func (m *metrics) showNoLocal() {
	for _, f := range m.config.Families {
		m.noLocal.WithLabelValues("internal", familyName(f)).Set(float64(m.ports.noLocal[policyOf{f, false}]))
		m.noLocal.WithLabelValues("external", familyName(f)).Set(float64(m.ports.noLocal[policyOf{f, true}]))
	}
}

// knows tells whether a Service port is being served.
func (m *metrics) knows(k service.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.ports.of[k]
	return known
}

// answered counts an answer of /healthz or /livez.
func (m *metrics) answered(path string, code int) {
	m.answers[path].WithLabelValues(strconv.Itoa(code)).Inc()
}

// walked takes the result of a walk over the tracked connections.
func (m *metrics) walked(f service.Family, took time.Duration, deleted int) {
	m.conntrack.duration.WithLabelValues(familyName(f)).Observe(took.Seconds())
	m.conntrack.deleted.WithLabelValues(familyName(f)).Add(float64(deleted))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
