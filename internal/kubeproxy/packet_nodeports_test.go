package kubeproxy_test

import (
	"net/netip"
	"testing"

	"varco.dev/internal/nettest"
)

// TestNodePortAddresses is where NodePorts are served: at the node's own address, at all that are local, at chosen ones,
// and at loopback ones. The node has one address that is local by a route alone.
func TestNodePortAddresses(t *testing.T) {
	s := newStage(t)
	s.places["routed"] = []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8:2::7")}
	for f, a := range s.places["routed"] {
		s.must(s.nodes[0].ns.AddLocalRoute(single(a)))
		s.must(s.world.Router.AddRoute(single(a), s.places["node-1"][f], ""))
	}
	loopback := s.places["localhost"]
	for _, c := range []struct {
		table string
		addrs func(node string) []netip.Addr
	}{
		{"addresses primary", func(node string) []netip.Addr { return s.places[node] }},
		{"addresses all", func(string) []netip.Addr { return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} }},
		{"addresses chosen", func(node string) []netip.Addr { return s.places[node+"-pods"] }},
		{"addresses localhost", func(node string) []netip.Addr { return append(loopback[:2:2], s.places[node]...) }},
	} {
		t.Run(c.table, func(t *testing.T) {
			s := s.in(t)
			s.serve("services.txtar", knowsPods(), func(n *stageNode) {
				s.must(n.ns.Sysctl("net.ipv4.conf.all.route_localnet", "0"))
				if c.table == "addresses localhost" {
					s.must(n.ns.Sysctl("net.ipv4.conf.all.route_localnet", "1"))
				}
				n.table.SetNodeAddrs(c.addrs(n.name))
			})
			s.serveLocalhost()
			s.check("services.txtar", c.table)
		})
	}
}

// TestNodePortAddressesChange has addresses come and go while NodePorts are served.
func TestNodePortAddressesChange(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", knowsPods())
	s.change(func(n *stageNode) { n.table.SetNodeAddrs(s.places[n.name+"-pods"]) })
	nettest.RunTable(t, s.hosts, s.rows(`
		client -> one/tcp NodePort@node-1: reject
		node-2 -> one/tcp NodePort@node-1-pods: pod-1a as node-1
	`))
	s.change(func(n *stageNode) { n.table.SetNodeAddrs(s.places[n.name]) })
	nettest.RunTable(t, s.hosts, s.rows(`
		client -> one/tcp NodePort@node-1: pod-1a as node-1
		node-2 -> one/tcp NodePort@node-1-pods: reject
	`))
}

// TestLoopbackStaysClosed has the router send packets to 127.0.0.1 of a node that serves NodePorts there, for which the
// node routes such packets (CVE-2020-8558).
func TestLoopbackStaysClosed(t *testing.T) {
	s := newStage(t)
	const port = 9100
	s.listen("node-1", port)
	s.must(s.nodes[0].ns.Sysctl("net.ipv4.conf.all.route_localnet", "1"))
	s.sendsToLoopbackOf("router", "node-1")
	s.listen("router", port)
	ask := func() {
		t.Helper()
		c := nettest.Client{Host: s.nodes[0].ns, Protocol: "tcp", Local: netip.AddrPortFrom(s.places["localhost"][0], 0)}
		if _, err := c.Ask(t.Context(), netip.AddrPortFrom(s.places["router"][0], port)); err != nil {
			t.Errorf("from 127.0.0.1 to the router: %v", err)
		}
	}
	ask()
	open := s.rows("router -> 127.0.0.1:9100/tcp: node-1 as itself\nrouter -> 127.0.0.1:9100/udp: node-1 as itself")
	nettest.RunTable(t, s.hosts, open) // or the test would prove nothing

	s.serve("services.txtar", knowsPods(), func(n *stageNode) {
		n.table.SetNodeAddrs(append(s.places["localhost"][:2:2], s.places[n.name]...))
	})
	nettest.RunTable(t, s.hosts, s.rows(`
		router -> 127.0.0.1:9100/tcp: drop
		router -> 127.0.0.1:9100/udp: drop
		router -> one/v4 NodePort@localhost: drop
		router -> one NodePort@node-1: pod-1a as node-1
		node-1 -> 127.0.0.1:9100/tcp: node-1 as localhost
		node-1 -> one/v4 NodePort@localhost: pod-1a as node-1
	`))
	ask() // what the node itself has begun is answered, say where others have rules for 127.0.0.1
}

// sendsToLoopbackOf makes a host that has no loopback address of its own, and takes that of a node for a neighbour's.
func (s *stage) sendsToLoopbackOf(host, node string) {
	s.t.Helper()
	ns, loopback := s.hosts.Namespaces[host], s.places["localhost"][0]
	s.must(ns.DelAddr("lo", netip.PrefixFrom(loopback, 8)))
	s.must(ns.Sysctl("net.ipv4.conf.all.route_localnet", "1"))
	s.must(ns.AddRoute(single(loopback), s.places[node][0], ""))
	s.hosts.Names[loopback] = "localhost"
}

// single is the network of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
