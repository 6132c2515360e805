package kubeproxy_test

import (
	"testing"

	"varco.dev/internal/nettest"
)

// TestSourceRanges is loadBalancerSourceRanges, from everywhere and at each sort of address.
func TestSourceRanges(t *testing.T) {
	s := newStage(t)
	s.serve("sources.txtar", knowsPods())
	s.check("sources.txtar", "packets")

	// A balancer that is the node itself: it holds the addresses, and connections to them come from them.
	t.Run("balancer at node-1", func(t *testing.T) {
		s := s.in(t)
		s.hold(s.nodes[0].ns, "nodes-only", "single", "ranged", "open")
		s.check("sources.txtar", "balancer at node-1")
	})
}

// TestSourceRangesChange takes ranges away and brings them, while the Service is served.
func TestSourceRangesChange(t *testing.T) {
	s := newStage(t)
	s.serve("sources.txtar", knowsPods())
	for _, c := range []struct {
		ranges []string
		rows   string
	}{
		{
			[]string{"10.244.1.0/28", "fd00:244:0:1::/120"},
			"client -> ranged LoadBalancerIP: drop\npod-1c -> ranged LoadBalancerIP: pod-1a as node-1",
		},
		{nil, "client, pod-1c -> ranged LoadBalancerIP: pod-1a as node-1"},
		{
			[]string{"203.0.113.10/32", "2001:db8:113::/48"},
			"client -> ranged LoadBalancerIP: pod-1a as node-1\npod-1c -> ranged LoadBalancerIP: drop",
		},
	} {
		svc := s.service("ranged").DeepCopy()
		svc.Spec.LoadBalancerSourceRanges = c.ranges
		s.set(svc)
		s.forgetAll()
		nettest.RunTable(t, s.hosts, s.rows(c.rows))
	}
}
