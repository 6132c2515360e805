package apiwatch_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/service"
)

// FuzzService converts whatever JSON makes of a Service, and has a table serve it. What comes out keeps what package
// service promises to data planes.
func FuzzService(f *testing.F) {
	for _, seed := range []string{
		`{"metadata":{"name":"a"},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}`,
		`{"spec":{"clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1","::ffff:10.0.0.1"],"ipFamilies":["IPv4","IPv6","IPv4"],"ports":[{"port":80,"nodePort":-1},{"port":80}]}}`,
		`{"metadata":{"annotations":{"varco.dev/balance":"maglev","varco.dev/weights":"10.244.0.1=0,node/a=7,=,zone/=1"}},
		  "spec":{"type":"LoadBalancer","clusterIP":"fd00::1","externalTrafficPolicy":"Local","internalTrafficPolicy":"Local","healthCheckNodePort":31000,
		  "sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{}},"loadBalancerSourceRanges":[" ::ffff:10.0.0.0/97","0.0.0.0/0"," "],"ports":[{"port":1}]},
		  "status":{"loadBalancer":{"ingress":[{"ip":"fd00::2"},{"hostname":"x"},{"ip":"","ipMode":"Proxy"}]}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var obj corev1.Service
		if json.Unmarshal(text, &obj) != nil {
			return
		}
		s, ok, _ := apiwatch.Service(&obj)
		if !ok {
			return
		}
		table := service.NewTable("node-1")
		table.SetNode(service.Node{Zone: "zone-a", Addrs: []netip.Addr{netip.MustParseAddr("10.240.0.11"), netip.MustParseAddr("fd00::11")}})
		table.SetService(s)
		sl, _, _ := apiwatch.Slice(slice("s", "any", "10.244.0.1", "10.244.0.2"))
		sl.Service = s.Name
		table.SetSlice(sl)
		checkTable(t, table)
		table.DeleteService(s.Name)
		table.DeleteSlice(sl.Name)
		if c := table.Changes(); len(table.All().Ports)+len(table.All().Health) != 0 {
			t.Errorf("left behind: %+v", c)
		}
	})
}

// FuzzSlice converts whatever JSON makes of an EndpointSlice, and has a Service use it.
func FuzzSlice(f *testing.F) {
	for _, seed := range []string{
		`{"metadata":{"name":"s","labels":{"kubernetes.io/service-name":"a"}},"addressType":"IPv4","ports":[{"name":"","port":8080}],
		  "endpoints":[{"addresses":["10.244.0.1"],"nodeName":"node-1","hints":{"forZones":[{"name":"zone-a"}],"forNodes":[{"name":"node-1"}]}},{"addresses":["10.244.0.1"],"conditions":{"ready":false,"terminating":true}}]}`,
		`{"metadata":{"labels":{"kubernetes.io/service-name":"a"},"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-01T00:00:00Z"}},
		  "addressType":"IPv6","ports":[{"name":"","port":8080},{"name":"","port":8081},{"port":0}],"endpoints":[{"addresses":["fd00::1","fd00::2"]},{"addresses":[]},{"addresses":["10.0.0.1"]}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var obj discoveryv1.EndpointSlice
		if json.Unmarshal(text, &obj) != nil {
			return
		}
		s, ok, _ := apiwatch.Slice(&obj)
		if !ok {
			return
		}
		table := service.NewTable("node-1")
		table.SetNode(service.Node{Zone: "zone-a"})
		table.SetService(&service.Service{
			Name: s.Service, Created: time.Unix(1, 0), ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")},
			Ports: []service.ServicePort{{Protocol: service.TCP, Port: 80}}, External: service.PolicyLocal, HealthCheckPort: 31000,
			ExternalIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		})
		table.SetSlice(s)
		checkTable(t, table)
		again, _, _ := apiwatch.Slice(&obj)
		table.SetSlice(again)
		if c := table.Changes(); !c.Empty() {
			t.Errorf("the same again changes %+v", c)
		}
	})
}

// checkTable looks at what data planes rely on.
func checkTable(t *testing.T, table *service.Table) {
	t.Helper()
	for _, c := range table.Changes().Ports {
		p := c.New
		for _, f := range p.Frontends {
			usable(t, p.Key.Family, f.Addr, f.Kind == service.NodePort)
			x, ok := table.Explain(service.Question{Protocol: p.Key.Protocol, To: f.Addr})
			if !ok || x.Frontend != f || len(x.Backends) != len(p.Backends(f.Kind)) {
				t.Errorf("%s at %v: explained as %+v", p.Key, f, x)
			}
		}
		for _, set := range [][]service.Backend{p.Cluster, p.Local, p.Serving} {
			for i, b := range set {
				usable(t, p.Key.Family, b.Addr, false)
				if b.Weight == 0 || i > 0 && b.Compare(set[i-1]) <= 0 {
					t.Errorf("%s: %v in %v", p.Key, b, set)
				}
			}
		}
		if p.Affinity < 0 || p.Affinity > 24*time.Hour || p.Affinity%time.Second != 0 {
			t.Errorf("%s: affinity %s", p.Key, p.Affinity)
		}
		if !slices.IsSortedFunc(p.Sources, netip.Prefix.Compare) {
			t.Errorf("%s: sources %v", p.Key, p.Sources)
		}
		for _, s := range p.Sources {
			if s != s.Masked() || s.Bits() < 1 || service.FamilyOf(s.Addr()) != p.Key.Family {
				t.Errorf("%s: source %v", p.Key, s)
			}
		}
	}
}

func usable(t *testing.T, family service.Family, at netip.AddrPort, unspecified bool) {
	t.Helper()
	a := at.Addr()
	if at.Port() == 0 || a.Is4In6() || a.Zone() != "" || service.FamilyOf(a) != family || a.IsUnspecified() != unspecified || a.IsMulticast() {
		t.Errorf("%v is not to be served as %s", at, family)
	}
}
