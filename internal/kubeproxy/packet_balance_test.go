package kubeproxy_test

import (
	"net/netip"
	"slices"
	"testing"

	"varco.dev/internal/nettest"
)

// TestBalanceWeights counts connections to a Service whose endpoints have weights 3, 0 and 1.
func TestBalanceWeights(t *testing.T) {
	s := newStage(t)
	s.serve("balance.txtar", knowsPods())
	for _, row := range s.rows("client -> weighted/tcp LoadBalancerIP: drop\nnode-1 -> weighted/udp ClusterIP: drop") {
		c := nettest.Client{Host: s.hosts.Namespaces[row.From], Protocol: row.Protocol}
		count := map[string]int{}
		for range 1000 {
			a, err := c.Ask(t.Context(), row.To)
			s.must(err)
			count[a.Server]++
		}
		// 750 are to be expected; 110 are eight standard deviations. Without weights there would be 333 or 500.
		if n := count["pod-1a"]; n < 640 || n > 860 || count["pod-1b"] > 0 || len(count) != 2 {
			t.Errorf("%s: got %v of 1000, want three of four at pod-1a, none at pod-1b", row, count)
		}
	}
	nettest.RunTable(t, s.hosts, s.rows("client -> weightless ClusterIP: pod-1a pod-1b pod-2a as node-1"))
}

// TestBalanceHashSourceIP has many clients come by both nodes: each client has its backend, whatever the node.
func TestBalanceHashSourceIP(t *testing.T) {
	s := newStage(t)
	s.serve("balance.txtar", knowsPods())
	for _, c := range s.crowds(100) {
		t.Run(c.String(), func(t *testing.T) {
			first := c.ask(t, "hash LoadBalancerIP")
			if len(slices.Compact(slices.Sorted(slices.Values(first)))) < 2 {
				t.Errorf("all clients have the same backend: %v", first)
			}
			for _, at := range []string{"NodePort@node-1", "NodePort@node-2", "ClusterIP", "LoadBalancerIP"} {
				c.stay(t, first, "hash "+at)
			}
		})
	}
}

// TestBalanceMaglev sends flows by one node, then by the other, as routers do that share a balancer's address among nodes:
// both choose alike. When an endpoint leaves, most flows of the others stay.
func TestBalanceMaglev(t *testing.T) {
	s := newStage(t)
	s.serve("maglev.txtar", knowsPods())
	for _, row := range s.rows("client -> maglev/udp LoadBalancerIP: drop") {
		flows := func() (backends []string) {
			s.forgetAll()
			for i := range 100 {
				from := nettest.ClientNet.Host(nettest.ClientHost).Addrs()[row.To.Addr().BitLen()/128]
				c := nettest.Client{Host: s.world.Client, Protocol: "udp", Local: netip.AddrPortFrom(from, uint16(20000+i))}
				a, err := c.Ask(t.Context(), row.To)
				s.must(err)
				backends = append(backends, a.Server)
			}
			return backends
		}
		route := func(node string) {
			s.must(s.world.Router.AddRoute(single(row.To.Addr()), s.places[node][row.To.Addr().BitLen()/128], ""))
		}
		route("node-1")
		before := flows()
		if len(slices.Compact(slices.Sorted(slices.Values(before)))) != 3 {
			t.Errorf("%s: not all backends are used: %v", row, before)
		}
		route("node-2")
		if after := flows(); !slices.Equal(before, after) {
			t.Errorf("%s: by node-1 %v, by node-2 %v", row, before, after)
		}
		s.set(without(s.slices("maglev")[row.To.Addr().BitLen()/128], "node-2", false))
		stayed, could := 0, 0
		for i, b := range flows() {
			if before[i] != "pod-2a" {
				could++
				if b == before[i] {
					stayed++
				}
			}
		}
		if stayed < could*3/4 {
			t.Errorf("%s: an endpoint left, and of %d flows of others %d stayed", row, could, stayed)
		}
	}
}
