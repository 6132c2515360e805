package service_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"varco.dev/internal/service"
)

// script is a source of random changes over few names and addresses, so that Services claim each other's addresses,
// share endpoints, and objects come and go in any order.
type script struct {
	*rand.Rand
	services map[service.Name]*service.Service
	slices   map[service.Name]*service.Slice
	node     service.Node
	cidrs    []netip.Prefix
	addrs    []netip.Addr
}

func newScript(seed uint64) *script {
	return &script{
		Rand:     rand.New(rand.NewPCG(seed, 1)),
		services: map[service.Name]*service.Service{}, slices: map[service.Name]*service.Slice{},
	}
}

func (r *script) name(n int) service.Name {
	return service.Name{Namespace: "x", Name: fmt.Sprint(r.IntN(n))}
}

func (r *script) chance(n int) bool { return r.IntN(n) == 0 }

func (r *script) zone() string { return []string{"", "zone-a", "zone-b"}[r.IntN(3)] }

func (r *script) addr(net byte, n int) netip.Addr {
	if r.chance(2) {
		return netip.AddrFrom4([4]byte{10, net, 0, byte(1 + r.IntN(n))})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: net, 15: byte(1 + r.IntN(n))})
}

func (r *script) some(net byte, n int) (out []netip.Addr) {
	for range r.IntN(3) {
		out = append(out, r.addr(net, n))
	}
	return out
}

func (r *script) service() *service.Service {
	s := &service.Service{
		Name: r.name(5), Created: time.Unix(int64(r.IntN(2)), 0),
		ClusterIPs: r.some(96, 6), ExternalIPs: r.some(96, 8), LoadBalancerIPs: r.some(98, 3),
		Internal: service.Policy(r.IntN(2)), External: service.Policy(r.IntN(2)), Balance: service.Balance(r.IntN(3)),
	}
	for i := range r.IntN(3) {
		p := service.ServicePort{Name: fmt.Sprint(i), Protocol: []service.Protocol{service.TCP, service.UDP}[r.IntN(2)], Port: uint16(80 + r.IntN(2))}
		if r.chance(2) {
			p.NodePort = uint16(30000 + r.IntN(3))
		}
		s.Ports = append(s.Ports, p)
	}
	if r.chance(2) {
		a := r.addr(240, 3)
		s.Sources = append(s.Sources, netip.PrefixFrom(a, r.IntN(a.BitLen()+1)))
	}
	if r.chance(3) {
		s.HealthCheckPort, s.Affinity = 31000, time.Minute
		s.Weights = []service.Weight{{Node: "node-0", Weight: uint16(r.IntN(3))}, {Zone: "zone-a", Weight: uint16(r.IntN(3))}, {Addr: r.addr(244, 6)}}
	}
	return s
}

func (r *script) slice() *service.Slice {
	s := &service.Slice{Name: r.name(8), Service: r.name(5)}
	for i := range 2 {
		s.Ports = append(s.Ports, service.SlicePort{Name: fmt.Sprint(i), Protocol: service.TCP, Port: uint16(8080 + r.IntN(2))})
	}
	hinted := r.chance(2)
	for range r.IntN(5) {
		e := service.Endpoint{Addr: r.addr(244, 6), Node: fmt.Sprintf("node-%d", r.IntN(2)), Zone: r.zone(), Ready: r.IntN(3) > 0}
		e.Serving, e.Terminating = r.IntN(3) > 0, !e.Ready && r.chance(2)
		if hinted {
			e.ForZones = []string{r.zone()}
		}
		if hinted && r.chance(2) {
			e.ForNodes = []string{fmt.Sprintf("node-%d", r.IntN(2))}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

// step changes something in the table and in the script's own memory of what there is.
func (r *script) step(t *service.Table) {
	switch r.IntN(12) {
	case 0, 1, 2:
		s := r.service()
		r.services[s.Name] = s
		t.SetService(s)
	case 3:
		n := r.name(5)
		delete(r.services, n)
		t.DeleteService(n)
	case 4, 5, 6, 7:
		s := r.slice()
		r.slices[s.Name] = s
		t.SetSlice(s)
	case 8:
		n := r.name(8)
		delete(r.slices, n)
		t.DeleteSlice(n)
	case 9:
		r.node = service.Node{Zone: r.zone(), Addrs: r.some(240, 2)}
		t.SetNode(r.node)
	case 10:
		r.addrs = r.some(240, 2)
		t.SetNodeAddrs(r.addrs)
		r.cidrs = []netip.Prefix{netip.PrefixFrom(r.addr(96, 1), 16+r.IntN(2))}
		t.SetCIDRs(r.cidrs)
	case 11: // a relist, in which some are gone and one is new
		r.relist(t)
	}
}

func (r *script) relist(t *service.Table) {
	var services []*service.Service
	var slcs []*service.Slice
	drop := r.IntN(8)
	for n, s := range r.services {
		if r.chance(8) && drop == 0 {
			delete(r.services, n)
			continue
		}
		same := *s
		services = append(services, &same)
	}
	for n, s := range r.slices {
		if r.chance(8) && drop == 1 {
			delete(r.slices, n)
			continue
		}
		same := *s
		slcs = append(slcs, &same)
	}
	t.ReplaceServices(slices.Values(services))
	t.ReplaceSlices(slices.Values(slcs))
}

// fresh computes from nothing what the script's objects ask for.
func (r *script) fresh() service.Changes {
	t := service.NewTable("node-1")
	t.SetNode(r.node)
	for _, s := range r.slices {
		t.SetSlice(s)
	}
	for _, s := range r.services {
		t.SetService(s)
	}
	t.SetNodeAddrs(r.addrs)
	t.SetCIDRs(r.cidrs)
	return t.Changes()
}

// exact compares all that Changes hold. It lets nil and empty be the same.
func exact() cmp.Options {
	return cmp.Options{
		cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}

// TestIncrementalEqualsFresh changes objects at random. After each step the desired state must be what is computed from
// nothing, and what a reader holds who follows the changes.
func TestIncrementalEqualsFresh(t *testing.T) {
	for seed := range uint64(20) {
		r, table := newScript(seed), service.NewTable("node-1")
		ports, health := map[service.Key]*service.Port{}, map[service.Name]*service.HealthCheck{}
		for step := range 150 {
			r.step(table)
			c := table.Changes()
			follow(t, ports, health, c)
			want, got := r.fresh(), table.All()
			want.Triggers = nil
			if diff := cmp.Diff(want, got, exact()); diff != "" {
				t.Fatalf("seed %d step %d (-fresh +incremental)\n%s", seed, step, diff)
			}
			if len(ports) != len(got.Ports) || len(health) != len(got.Health) {
				t.Fatalf("seed %d step %d: a reader holds %d ports and %d health checks of %d and %d",
					seed, step, len(ports), len(health), len(got.Ports), len(got.Health))
			}
			check(t, got)
			checkExplanations(t, table, got)
		}
	}
}

// follow applies changes to what a reader holds, and looks whether they begin with that.
func follow(t *testing.T, ports map[service.Key]*service.Port, health map[service.Name]*service.HealthCheck, c service.Changes) {
	t.Helper()
	for _, p := range c.Ports {
		if ports[p.Key()] != p.Old {
			t.Fatalf("%s: the change does not begin with what there was", p.Key())
		}
		ports[p.Key()] = p.New
		if p.New == nil {
			delete(ports, p.Key())
		}
	}
	for _, h := range c.Health {
		name := service.Name{}
		if h.New != nil {
			name = h.New.Service
		} else {
			name = h.Old.Service
		}
		if health[name] != h.Old {
			t.Fatalf("%s: the health check does not begin with what there was", name)
		}
		health[name] = h.New
		if h.New == nil {
			delete(health, name)
		}
	}
}

// check looks at what must hold whatever the objects are.
func check(t *testing.T, all service.Changes) {
	t.Helper()
	type place struct {
		at       netip.AddrPort
		protocol service.Protocol
	}
	has := map[place]service.Key{}
	for _, c := range all.Ports {
		p := c.New
		for _, f := range p.Frontends {
			at := place{f.Addr, p.Key.Protocol}
			if other, ok := has[at]; ok {
				t.Fatalf("%v is given to %s and %s", f, other, p.Key)
			}
			has[at] = p.Key
		}
		for _, set := range [][]service.Backend{p.Cluster, p.Local, p.Serving} {
			if !slices.IsSortedFunc(set, service.Backend.Compare) {
				t.Fatalf("%s: backends are not sorted: %v", p.Key, set)
			}
			for i, b := range set {
				if i > 0 && set[i-1].Addr == b.Addr || b.Weight == 0 && !slices.Equal(set, p.Serving) || service.FamilyOf(b.Addr.Addr()) != p.Key.Family {
					t.Fatalf("%s: backend %v in %v", p.Key, b, set)
				}
			}
		}
		if !p.HasEndpoints && len(p.Cluster)+len(p.Local) > 0 {
			t.Fatalf("%s has backends and no endpoints", p.Key)
		}
	}
}

// checkExplanations compares what is explained for each frontend with what is asked of the data plane.
func checkExplanations(t *testing.T, table *service.Table, all service.Changes) {
	t.Helper()
	for _, c := range all.Ports {
		for _, f := range c.New.Frontends {
			x, ok := table.Explain(service.Question{Protocol: c.New.Key.Protocol, To: f.Addr})
			if !ok || x.Service != c.New.Key.Service || x.Frontend != f || x.Policy != c.New.PolicyOf(f.Kind) {
				t.Fatalf("%s at %v: got %+v", c.New.Key, f, x)
			}
			var got []service.Backend
			for _, b := range x.Backends {
				got = append(got, service.Backend{Addr: b.Addr, Local: b.Local, Weight: b.Weight})
			}
			if want := c.New.Backends(f.Kind); !slices.Equal(got, want) {
				t.Fatalf("%s at %v: explained %v, want %v", c.New.Key, f, got, want)
			}
		}
	}
}
