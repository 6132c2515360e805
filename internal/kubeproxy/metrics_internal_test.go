package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// scrape returns the samples whose names begin with one of the prefixes.
func scrape(m *metrics, prefixes ...string) (out []string) {
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return out
}

func wantSamples(t *testing.T, when string, m *metrics, prefix string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, scrape(m, prefix)); diff != "" {
		t.Errorf("%s: -want +got:\n%s", when, diff)
	}
}

// TestMetricNames compares with the names that kube-proxy 1.37 registers in nftables mode.
func TestMetricNames(t *testing.T) {
	m := newMetrics(metricsConfig{Version: "v1.2.3", States: func() (int, int, int) { return 3, 2, 1 }})
	m.observe(reconcile.Result{Full: true})
	m.observe(reconcile.Result{})
	m.seen("Service")
	m.applied(service.Changes{Triggers: []time.Time{time.Now()}}, false)
	m.walked(service.IPv4, time.Second, 2)
	m.answered("/healthz", 200)
	m.answered("/livez", 503)
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var got []string
	for line := range strings.Lines(w.Body.String()) {
		words := strings.Fields(line)
		if words[1] == "TYPE" && !strings.HasPrefix(words[2], "go_") && !strings.HasPrefix(words[2], "process_") {
			got = append(got, words[2]+" "+words[3])
		}
	}
	want := []string{
		"kubeproxy_conntrack_reconciler_deleted_entries_total counter",
		"kubeproxy_conntrack_reconciler_sync_duration_seconds histogram",
		"kubeproxy_network_programming_duration_seconds histogram",
		"kubeproxy_nftables_localhost_nodeport_listener_creation_failures_total counter",
		"kubeproxy_nftables_localhost_nodeport_listeners gauge",
		"kubeproxy_proxy_healthz_total counter",
		"kubeproxy_proxy_livez_total counter",
		"kubeproxy_sync_full_proxy_rules_duration_seconds histogram",
		"kubeproxy_sync_partial_proxy_rules_duration_seconds histogram",
		"kubeproxy_sync_proxy_rules_duration_seconds histogram",
		"kubeproxy_sync_proxy_rules_endpoint_changes_pending gauge",
		"kubeproxy_sync_proxy_rules_endpoint_changes_total counter",
		"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge",
		"kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
		"kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total counter",
		"kubeproxy_sync_proxy_rules_nftables_sync_failures_total counter",
		"kubeproxy_sync_proxy_rules_no_local_endpoints_total gauge",
		"kubeproxy_sync_proxy_rules_service_changes_pending gauge",
		"kubeproxy_sync_proxy_rules_service_changes_total counter",
		"kubernetes_build_info gauge",
		"varco_kubeproxy_ports gauge",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	wantSamples(t, "states", m, "varco_kubeproxy_ports{",
		`varco_kubeproxy_ports{state="done"} 3`, `varco_kubeproxy_ports{state="error"} 1`, `varco_kubeproxy_ports{state="pending"} 2`)
	wantSamples(t, "probes", m, "kubeproxy_proxy_", `kubeproxy_proxy_healthz_total{code="200"} 1`, `kubeproxy_proxy_livez_total{code="503"} 1`)
	wantSamples(t, "flows", m, "kubeproxy_conntrack_reconciler_deleted",
		`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 2`, `kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"} 0`)
}

// TestBuckets wants upstream's bounds among ours, so that its queries and alerts go on.
func TestBuckets(t *testing.T) {
	m := newMetrics(metricsConfig{Families: []service.Family{service.IPv4}})
	m.observe(reconcile.Result{Took: time.Millisecond})
	m.loop.programmed(time.Second, m.families)
	for prefix, bounds := range map[string][]string{
		"kubeproxy_sync_proxy_rules_duration_seconds_bucket":    {"0.000125", "0.001", "0.002", "0.512", "16.384", "+Inf"},
		"kubeproxy_network_programming_duration_seconds_bucket": {"0.01", "0.25", "0.5", "1", "59", "60", "65", "115", "120", "150", "300", "+Inf"},
	} {
		got := scrape(m, prefix)
		for _, b := range bounds {
			if !slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, `le="`+b+`"`) }) {
				t.Errorf("%s has no %s", prefix, b)
			}
		}
	}
}

func TestProgrammingTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour) // of the fake clock
		m := newMetrics(metricsConfig{Families: []service.Family{service.IPv6}})
		time.Sleep(time.Minute) // of the fake clock
		now := time.Now()
		m.applied(service.Changes{Triggers: []time.Time{now.Add(-2 * time.Minute), now.Add(-3 * time.Second), now.Add(-4 * time.Second)}}, false)
		wantSamples(t, "two of three are of after the start", m, "kubeproxy_network_programming_duration_seconds_sum",
			`kubeproxy_network_programming_duration_seconds_sum{ip_family="IPv6"} 7`)
	})
}

func TestPendingChanges(t *testing.T) {
	var health reconcile.Health
	m := newMetrics(metricsConfig{Health: func() reconcile.Health { return health }})
	const pending = "kubeproxy_sync_proxy_rules_endpoint_changes_"
	m.seen("EndpointSlice")
	m.seen("Node")
	wantSamples(t, "nothing waits", m, pending, pending+"pending 0", pending+"total 1")
	health.PendingFrom = time.Now()
	wantSamples(t, "it waits", m, pending, pending+"pending 1", pending+"total 1")
	m.seen("EndpointSlice")
	m.seen("Service")
	wantSamples(t, "two wait", m, pending, pending+"pending 2", pending+"total 2")
	health.PendingFrom = time.Time{}
	m.seen("EndpointSlice")
	health.PendingFrom = time.Now()
	wantSamples(t, "the next one waits", m, pending, pending+"pending 1", pending+"total 3")
}

// TestQueuedTime has objects come that change nothing: that must not look like a change that is stuck.
func TestQueuedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var health reconcile.Health
		m := newMetrics(metricsConfig{Families: []service.Family{service.IPv4}, Health: func() reconcile.Health { return health }})
		const queued, last = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
		show := func(name string, at time.Time) string {
			return fmt.Sprintf("%s{ip_family=%q} %v", name, "IPv4", float64(at.Unix()))
		}
		begun := time.Now()
		time.Sleep(time.Second) // of the fake clock
		applied := time.Now()
		m.observe(reconcile.Result{Took: time.Second})
		time.Sleep(time.Hour) // of the fake clock
		m.seen("Node")
		m.seen("EndpointSlice")
		wantSamples(t, "nothing waits", m, queued, show(queued, begun))
		wantSamples(t, "applied", m, last, show(last, applied))
		health.PendingFrom = time.Now()
		wantSamples(t, "one waits", m, queued, show(queued, time.Now()))
		health.PendingFrom = time.Time{}
		m.observe(reconcile.Result{Err: errors.New("no")})
		wantSamples(t, "it is refused", m, queued, show(queued, time.Now()))
		wantSamples(t, "not applied", m, last, show(last, applied))
	})
}

func TestNoLocalEndpoints(t *testing.T) {
	m := newMetrics(metricsConfig{})
	port := func(name string, family service.Family, has bool, local int, internal, external service.Policy) *service.Port {
		return &service.Port{
			Key: service.Key{Service: service.Name{Name: name}, Family: family}, HasEndpoints: has,
			Local: make([]service.Backend, local), Internal: internal, External: external,
		}
	}
	const cluster, local = service.PolicyCluster, service.PolicyLocal
	a := port("a", service.IPv4, true, 0, local, local)
	b := port("b", service.IPv4, true, 0, cluster, local)
	const name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
	lines := func(e4, e6, i4, i6 string) []string {
		return []string{
			name + `{ip_family="IPv4",traffic_policy="external"} ` + e4, name + `{ip_family="IPv4",traffic_policy="internal"} ` + i4,
			name + `{ip_family="IPv6",traffic_policy="external"} ` + e6, name + `{ip_family="IPv6",traffic_policy="internal"} ` + i6,
		}
	}
	wantSamples(t, "at the start", m, name, lines("0", "0", "0", "0")...)
	m.applied(service.Changes{Ports: []service.Change{
		{New: a}, {New: b}, {New: port("c", service.IPv6, true, 0, local, cluster)},
		{New: port("none", service.IPv6, false, 0, local, local)}, {New: port("here", service.IPv6, true, 1, local, local)},
	}}, true)
	wantSamples(t, "all", m, name, lines("2", "0", "1", "1")...)
	m.applied(service.Changes{Ports: []service.Change{{Old: a, New: port("a", service.IPv4, true, 1, local, local)}, {Old: b}}}, false)
	wantSamples(t, "changes", m, name, lines("0", "0", "0", "1")...)
	m.applied(service.Changes{}, true)
	wantSamples(t, "nothing is left", m, name, lines("0", "0", "0", "0")...)
}

// TestServiceCounts has the kernel's counters begin anew, vanish and fail: what is shown never goes backwards, and it is
// read once a second at most.
func TestServiceCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := service.Key{Service: service.Name{Namespace: "ns", Name: "web"}, Port: "http", Protocol: service.TCP, Family: service.IPv4}
		var kernel []ServiceCount
		var failure error
		reads := 0
		m := newMetrics(metricsConfig{Traffic: true, Counts: func(context.Context) ([]ServiceCount, error) {
			reads++
			return kernel, failure
		}})
		m.applied(service.Changes{Ports: []service.Change{{New: &service.Port{Key: web}}}}, true)
		const labels = `{ip_family="IPv4",namespace="ns",port="http",protocol="TCP",service="web"} `
		lines := func(connections, packets, bytes string) []string {
			const prefix = "varco_kubeproxy_service_"
			return []string{prefix + "bytes_total" + labels + bytes, prefix + "connections_total" + labels + connections, prefix + "packets_total" + labels + packets}
		}
		for _, step := range []struct {
			when    string
			counts  []ServiceCount
			failure error
			gone    bool
			want    []string
		}{
			{"first", []ServiceCount{{web, 1, 10, 100}}, nil, false, lines("1", "10", "100")},
			{"more", []ServiceCount{{web, 2, 20, 200}}, nil, false, lines("2", "20", "200")},
			{"anew", []ServiceCount{{web, 1, 5, 50}}, nil, false, lines("3", "25", "250")},
			{"without elements", nil, nil, false, lines("3", "25", "250")},
			{"with elements again", []ServiceCount{{web, 1, 1, 1}}, nil, false, lines("4", "26", "251")},
			{"one counter anew", []ServiceCount{{web, 2, 2, 0}}, nil, false, lines("5", "27", "251")},
			{"failing", nil, errors.New("no kernel"), false, lines("5", "27", "251")},
			{"gone", nil, nil, true, nil},
			{"one that is not known", []ServiceCount{{web, 9, 9, 9}}, nil, true, nil},
		} {
			kernel, failure = step.counts, step.failure
			if step.gone {
				m.applied(service.Changes{}, true)
			}
			time.Sleep(countsMaxAge) // of the fake clock
			wantSamples(t, step.when, m, "varco_kubeproxy_service_", step.want...)
		}
		before := reads
		scrape(m, "")
		scrape(m, "")
		if reads != before {
			t.Errorf("read %d times within a second", reads-before+1)
		}
	})
}

func TestServiceCountsWithoutTraffic(t *testing.T) {
	key := service.Key{Protocol: service.UDP, Family: service.IPv6}
	m := newMetrics(metricsConfig{Counts: func(context.Context) ([]ServiceCount, error) { return []ServiceCount{{Key: key, Connections: 7}}, nil }})
	m.applied(service.Changes{Ports: []service.Change{{New: &service.Port{Key: key}}}}, true)
	wantSamples(t, "connections alone", m, "varco_", `varco_kubeproxy_service_connections_total{ip_family="IPv6",namespace="",port="",protocol="UDP",service=""} 7`)
}
