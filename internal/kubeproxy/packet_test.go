package kubeproxy_test

import (
	"net/netip"
	"testing"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
)

// knowsPods is a node that knows pods by their networks. Of each family the first counts, as upstream.
func knowsPods() nft.Config {
	other := netip.MustParsePrefix("192.0.2.0/24")
	return nft.Config{Detector: nft.Detector{CIDRs: []netip.Prefix{nettest.PodNet.V4, nettest.PodNet.V6, other}}}
}

// TestPackets asks from everywhere for each address of Services of each policy, with TCP, UDP and SCTP over both families.
func TestPackets(t *testing.T) {
	s := newStage(t)
	s.listen("node-1", echoPort)
	s.serve("services.txtar", knowsPods())
	s.check("services.txtar", "packets")
}

// TestPacketsOfOthers has something else listen at the numbers of NodePorts. Connections to a NodePort without endpoints do
// not reach it, those to an address that serves no NodePorts do, and those that only pass the node go on.
func TestPacketsOfOthers(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", knowsPods())
	for _, port := range []uint16{30020, 30030} { // of web and empty
		s.listen("node-1", port)
		s.listen("pod-2a", port)
	}
	nettest.RunTable(t, s.hosts, s.rows(`
		client -> empty NodePort@node-1: reject
		client -> web NodePort@node-1: pod-1a pod-1b pod-2a as node-1
		pod-1a -> empty NodePort@node-1-pods: node-1 as itself
		pod-1a -> web NodePort@node-1-pods: node-1 as itself
		pod-1a -> empty NodePort@pod-2a: pod-2a as itself
		pod-1a -> web NodePort@pod-2a: pod-2a as itself
	`))
}

// TestTopologyHints is the choice by zone and node, and what a change of the node's zone does to it.
func TestTopologyHints(t *testing.T) {
	s := newStage(t)
	zones := func(first, second string) func(*stageNode) {
		return func(n *stageNode) {
			setNode(n.table, map[string]string{"node-1": first, "node-2": second}[n.name], s.places[n.name])
		}
	}
	s.serve("hints.txtar", knowsPods(), zones("a", "b"))
	s.check("hints.txtar", "packets")
	for table, zone := range map[string]string{"node-1 in zone b": "b", "node-1 without a zone": ""} {
		s.change(zones(zone, "b"))
		s.forgetAll()
		t.Run(table, func(t *testing.T) { s.in(t).check("hints.txtar", table) })
	}
}

// TestTerminatingEndpoints is the fallback to endpoints that terminate, by each policy for itself (KEP-1669).
func TestTerminatingEndpoints(t *testing.T) {
	s := newStage(t)
	s.serve("terminating.txtar", knowsPods())
	s.check("terminating.txtar", "packets")
}

// TestLoadBalancers is ipMode Proxy and VIP, ingress by name, and a Service without any.
func TestLoadBalancers(t *testing.T) {
	s := newStage(t)
	s.serve("balancers.txtar", knowsPods())
	s.hold(s.world.Router, "proxied")
	s.listen("router", 80)
	s.check("balancers.txtar", "packets")
	s.hold(s.nodes[0].ns, "vip", "away", "empty")
	t.Run("balancer at node-1", func(t *testing.T) { s.in(t).check("balancers.txtar", "balancer at node-1") })
}

// hold gives a host the load-balancer IPs of Services as its own, as a balancer does.
func (s *stage) hold(ns *nettest.Namespace, services ...string) {
	s.t.Helper()
	for _, name := range services {
		svc := s.service(name)
		for family := range 2 {
			at, _ := s.address(svc, "LoadBalancerIP", svc.Spec.Ports[0], family)
			s.must(ns.AddAddr("lo", single(at.Addr())))
		}
	}
}

// TestLocalReject refuses where a policy leaves no endpoint, for those who ask for that.
func TestLocalReject(t *testing.T) {
	s := newStage(t)
	c := knowsPods()
	c.LocalReject = true
	s.serve("services.txtar", c)
	s.check("services.txtar", "local reject")
}
