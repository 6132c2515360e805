package service_test

import (
	"strings"
	"testing"

	"varco.dev/internal/service"
)

// list writes backends as "ADDRESS", with ! if local and *N if of another weight than 1.
func list(bs []service.Backend) string {
	var out []string
	for _, b := range bs {
		text := b.Addr.Addr().String()
		if b.Local {
			text += "!"
		}
		if b.Weight != 1 {
			text += "*" + string('0'+rune(b.Weight))
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// only returns the one port that a table holds.
func only(t *testing.T, table *service.Table) *service.Port {
	t.Helper()
	table.Changes()
	all := table.All().Ports
	if len(all) != 1 {
		t.Fatalf("got %d ports, want 1", len(all))
	}
	return all[0].New
}

// TestChoice has a table of the node node-1 in zone-a choose among endpoints.
func TestChoice(t *testing.T) {
	for _, c := range []struct {
		name, endpoints         string
		internal, external      bool // Local
		cluster, local, serving string
		has                     bool
	}{
		{name: "ready ones", endpoints: "1.1.1.1@node-1 1.1.1.2@node-2 -1.1.1.3", cluster: "1.1.1.1! 1.1.1.2", serving: "1.1.1.1! 1.1.1.2", has: true},
		{name: "terminating ones while none is ready", endpoints: "~1.1.1.1@node-1 !1.1.1.2 -1.1.1.3", cluster: "1.1.1.1!", serving: "1.1.1.1!", has: true},
		{name: "terminating ones beside ready ones", endpoints: "~1.1.1.1 1.1.1.2", cluster: "1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "ready and not serving, as published", endpoints: "+1.1.1.1 1.1.1.2", cluster: "1.1.1.1 1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "none usable", endpoints: "-1.1.1.1 !1.1.1.2"},
		{name: "none at all"},

		{name: "local only, for internal clients", internal: true, endpoints: "1.1.1.1@node-1 1.1.1.2@node-2", local: "1.1.1.1!", serving: "1.1.1.1! 1.1.1.2", has: true},
		{name: "local only, and none local", internal: true, endpoints: "1.1.1.2@node-2", serving: "1.1.1.2", has: true},
		{name: "local ones terminate", internal: true, endpoints: "~1.1.1.1@node-1 1.1.1.2@node-2", local: "1.1.1.1!", serving: "1.1.1.1! 1.1.1.2", has: true},
		{name: "local only for external clients, others for those here", external: true, endpoints: "1.1.1.1@node-1 1.1.1.2@node-2",
			cluster: "1.1.1.1! 1.1.1.2", local: "1.1.1.1!", serving: "1.1.1.1! 1.1.1.2", has: true},
		{name: "local ones terminate, others are ready", external: true, endpoints: "~1.1.1.1@node-1 1.1.1.2@node-2",
			cluster: "1.1.1.2", local: "1.1.1.1!", serving: "1.1.1.1! 1.1.1.2", has: true},
		{name: "an endpoint without a node is not local", internal: true, endpoints: "1.1.1.1", serving: "1.1.1.1", has: true},

		{name: "hints for this node", endpoints: "1.1.1.1>node-1 1.1.1.2>node-2", cluster: "1.1.1.1", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "hints for this node before zones", endpoints: "1.1.1.1>node-1>zone-b 1.1.1.2>node-2>zone-a", cluster: "1.1.1.1", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "hints for other nodes, and this zone", endpoints: "1.1.1.1>node-3>zone-b 1.1.1.2>node-2>zone-a", cluster: "1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "hints for other nodes only", endpoints: "1.1.1.1>node-3 1.1.1.2>node-2", cluster: "1.1.1.1 1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "hints for this zone", endpoints: "1.1.1.1>zone-a 1.1.1.2>zone-b 1.1.1.3>zone-b>zone-a", cluster: "1.1.1.1 1.1.1.3", serving: "1.1.1.1 1.1.1.2 1.1.1.3", has: true},
		{name: "hints for other zones only", endpoints: "1.1.1.1>zone-b 1.1.1.2>zone-c", cluster: "1.1.1.1 1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "one without a hint switches them off", endpoints: "1.1.1.1>zone-a 1.1.1.2", cluster: "1.1.1.1 1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "one without a node hint leaves zones on", endpoints: "1.1.1.1>node-1>zone-b 1.1.1.2>zone-a", cluster: "1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "one that is not ready does not", endpoints: "1.1.1.1>zone-a 1.1.1.2>zone-b -1.1.1.3", cluster: "1.1.1.1", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "hints do not matter for those that terminate", endpoints: "~1.1.1.1>zone-a ~1.1.1.2>zone-b", cluster: "1.1.1.1 1.1.1.2", serving: "1.1.1.1 1.1.1.2", has: true},
		{name: "hints do not matter for local ones", external: true, endpoints: "1.1.1.1@node-1>zone-b 1.1.1.2@node-2>zone-a",
			cluster: "1.1.1.2", local: "1.1.1.1!", serving: "1.1.1.1! 1.1.1.2", has: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := service.NewTable("node-1")
			table.SetNode(service.Node{Zone: "zone-a"})
			s := svc("a", 1, "10.0.0.1")
			if c.internal {
				s.Internal = service.PolicyLocal
			}
			if c.external {
				s.External, s.Ports[0].NodePort = service.PolicyLocal, 30080
			}
			table.SetService(s)
			table.SetSlice(slice("a-1", "a", c.endpoints))
			p := only(t, table)
			for _, set := range []struct {
				name, want string
				got        []service.Backend
			}{{"cluster", c.cluster, p.Cluster}, {"local", c.local, p.Local}, {"serving", c.serving, p.Serving}} {
				if got := list(set.got); got != set.want {
					t.Errorf("%s: got %q, want %q", set.name, got, set.want)
				}
			}
			if p.HasEndpoints != c.has {
				t.Errorf("has endpoints: got %t, want %t", p.HasEndpoints, c.has)
			}
		})
	}
}

// TestPolicies looks at which sets there are, by who can use them.
func TestPolicies(t *testing.T) {
	local := func(internal, external service.Policy, at string, nodePort uint16) *service.Service {
		s := svc("a", 1, at)
		s.Internal, s.External, s.Ports[0].NodePort = internal, external, nodePort
		return s
	}
	const both, here = "1.1.1.1! 1.1.1.2", "1.1.1.1!"
	for _, c := range []struct {
		name           string
		service        *service.Service
		cluster, local string
	}{
		{"Cluster, Cluster", local(0, 0, "10.0.0.1", 30080), both, ""},
		{"Local inside, nothing outside", local(1, 0, "10.0.0.1", 0), "", here},
		{"Local inside, Cluster outside", local(1, 0, "10.0.0.1", 30080), both, here},
		{"Local inside, an external IP", local(1, 0, "10.0.0.1 192.0.2.1", 0), both, here},
		{"Local inside, a load balancer", local(1, 0, "10.0.0.1 *192.0.2.1", 0), both, here},
		{"Local outside, nothing outside", local(0, 1, "10.0.0.1", 0), both, ""},
		{"Local outside", local(0, 1, "10.0.0.1", 30080), both, here},
		{"Local, Local", local(1, 1, "10.0.0.1", 30080), both, here},
		{"an external IP of the other family does not count", local(1, 0, "10.0.0.1 2001:db8::1", 0), "", here},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := service.NewTable("node-1")
			table.SetService(c.service)
			table.SetSlice(slice("a-1", "a", "1.1.1.1@node-1 1.1.1.2@node-2"))
			p := only(t, table)
			if got := list(p.Cluster); got != c.cluster {
				t.Errorf("cluster: got %q, want %q", got, c.cluster)
			}
			if got := list(p.Local); got != c.local {
				t.Errorf("local: got %q, want %q", got, c.local)
			}
			if p.Internal != c.service.Internal || p.External != c.service.External {
				t.Errorf("got policies %s, %s", p.Internal, p.External)
			}
		})
	}
}

func TestWeights(t *testing.T) {
	zone, node := func(n uint16) service.Weight { return service.Weight{Zone: "zone-a", Weight: n} },
		func(n uint16) service.Weight { return service.Weight{Node: "node-2", Weight: n} }
	addr := func(n uint16) service.Weight { return service.Weight{Addr: endpoint("1.1.1.1").Addr, Weight: n} }
	for _, c := range []struct {
		name    string
		weights []service.Weight
		want    string
	}{
		{"none", nil, "1.1.1.1! 1.1.1.2 1.1.1.3"},
		{"by zone, node and address", []service.Weight{addr(3), node(0), zone(2)}, "1.1.1.1!*3 1.1.1.3*2"},
		{"the first counts", []service.Weight{zone(2), node(3), addr(4)}, "1.1.1.1!*2 1.1.1.2*3 1.1.1.3*2"},
		{"none for this one", []service.Weight{addr(0)}, "1.1.1.2 1.1.1.3"},
		{"none for all is the same for all", []service.Weight{zone(0), node(0)}, "1.1.1.1! 1.1.1.2 1.1.1.3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := service.NewTable("node-1")
			s := svc("a", 1, "10.0.0.1")
			s.Weights = c.weights
			table.SetService(s)
			table.SetSlice(slice("a-1", "a", "1.1.1.1@node-1/zone-a 1.1.1.2@node-2/zone-b 1.1.1.3@node-3/zone-a"))
			p := only(t, table)
			if got := list(p.Cluster); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(p.Serving) != 3 {
				t.Errorf("weights cut off flows that exist: serving %q", list(p.Serving))
			}
		})
	}
}
