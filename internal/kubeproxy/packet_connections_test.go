package kubeproxy_test

import (
	"io"
	"net/netip"
	"testing"
	"time"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// TestConnectionsOutliveRejection keeps connections open while what they go to becomes a frontend without endpoints: one
// through a Service, one straight to the node at an address that a Service then claims. Only new ones are refused.
func TestConnectionsOutliveRejection(t *testing.T) {
	s := newStage(t)
	through, straight := netip.MustParseAddrPort("10.96.0.99:80"), netip.MustParseAddrPort("10.240.0.11:9000")
	frontends := []service.Frontend{{Kind: service.ClusterIP, Addr: through}, {Kind: service.ExternalIP, Addr: straight}}
	before := long(frontends[:1], service.Backend{Addr: netip.MustParseAddrPort("10.244.1.2:9000")})
	s.begin(s.nodes[0], nft.Config{})
	plane := s.nodes[0].plane
	s.must(plane.Replace(t.Context(), service.Changes{Ports: []service.Change{{New: before}}}))

	alive := []func(){s.connect("pod-1b", "pod-1a", through), s.connect("client", "node-1", straight)}
	s.must(plane.Update(t.Context(), service.Changes{Ports: []service.Change{{Old: before, New: long(frontends)}}}))
	for _, still := range alive {
		still()
	}
	nettest.RunTable(t, s.hosts, s.rows(`
		pod-1b -> 10.96.0.99:80/tcp: reject
		client -> 10.240.0.11:9000/tcp: reject
	`))
}

// long is a Service port that the test itself makes.
func long(frontends []service.Frontend, backends ...service.Backend) *service.Port {
	key := service.Key{Service: service.Name{Namespace: "test", Name: "long"}, Protocol: service.TCP, Family: service.IPv4}
	return &service.Port{Key: key, Frontends: frontends, Cluster: backends, Serving: backends, HasEndpoints: len(backends) > 0}
}

// TestConnectionsOutliveChanges keeps connections open by each sort of address while endpoints, Services, networks and the
// data plane itself change around them.
func TestConnectionsOutliveChanges(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", knowsPods())
	s.serveLines("pod-1a")
	var alive []func()
	for _, r := range s.rows(`
		client -> lines NodePort@node-1, LoadBalancerIP, ExternalIP, ClusterIP: pod-1a as node-1
		client -> lines-local NodePort@node-1, LoadBalancerIP: pod-1a as itself
		pod-1c, pod-2b, node-1 -> lines ClusterIP: pod-1a as itself
		pod-1a -> lines ClusterIP: pod-1a as node-1
	`) {
		alive = append(alive, s.connectLines(r.From, r.To))
	}
	check := func(t *testing.T, what func(s *stage)) {
		t.Helper()
		s := s.in(t)
		what(s)
		for _, still := range alive {
			still()
		}
	}
	t.Run("restart", func(t *testing.T) { check(t, func(s *stage) { s.restart(knowsPods()) }) })
	t.Run("other rules", func(t *testing.T) {
		c := knowsPods()
		c.MasqueradeAll = true
		check(t, func(s *stage) { s.restart(c) })
	})
	t.Run("other networks", func(t *testing.T) {
		services := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")}
		check(t, func(s *stage) { s.change(func(n *stageNode) { n.table.SetCIDRs(services) }) })
	})
	t.Run("endpoints gone", func(t *testing.T) {
		check(t, func(s *stage) { s.change(func(n *stageNode) { deleteSlices(n.table, "lines", "lines-local") }) })
	})
	t.Run("Services gone", func(t *testing.T) {
		check(t, func(s *stage) {
			s.change(func(n *stageNode) {
				for _, name := range []string{"lines", "lines-local"} {
					n.table.DeleteService(service.Name{Namespace: "test", Name: name})
				}
			})
		})
	})
}

// deleteSlices deletes the EndpointSlices of Services of a file of testdata/packets.
func deleteSlices(table *service.Table, services ...string) {
	for _, name := range services {
		for _, family := range []string{"v4", "v6"} {
			table.DeleteSlice(service.Name{Namespace: "test", Name: name + "-" + family})
		}
	}
}

// linesPort is where pods of a test echo lines.
const linesPort = 9000

// serveLines echoes lines at linesPort of a host, on all connections.
func (s *stage) serveLines(host string) {
	s.t.Helper()
	l, err := s.hosts.Namespaces[host].Listen("tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), linesPort).String())
	s.must(err)
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// connect opens a connection to an echo of lines on a host. The function returned checks that it answers.
func (s *stage) connect(from, host string, to netip.AddrPort) (still func()) {
	s.t.Helper()
	s.serveLines(host)
	return s.connectLines(from, to)
}

// connectLines is connect where lines are served already.
func (s *stage) connectLines(from string, to netip.AddrPort) (still func()) {
	s.t.Helper()
	c, err := s.hosts.Namespaces[from].DialContext(s.t.Context(), "tcp", to.String())
	s.must(err)
	s.t.Cleanup(func() { c.Close() })
	still = func() {
		s.t.Helper()
		s.must(c.SetDeadline(time.Now().Add(10 * time.Second)))
		if _, err := io.WriteString(c, "hello"); err != nil {
			s.t.Fatalf("%s to %s: %v", from, to, err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			s.t.Fatalf("%s to %s: %v", from, to, err)
		}
	}
	still()
	return still
}
