package kubeproxy_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/runtime"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

const (
	echoPort      = 8080
	masqueradeBit = 1 << 14
)

// podsOf are the pods of each node, all echo servers. Endpoints are those that end in a and b; the others are clients
// that no Service leads to, so that none of them ever reaches itself.
var podsOf = [...][]string{{"pod-1a", "pod-1b", "pod-1c"}, {"pod-2a", "pod-2b"}}

// stage is two nodes with pods, each with a data plane of its own, and a client outside. What the client sends to
// addresses of Services arrives at node-1.
type stage struct {
	t       *testing.T
	world   *nettest.World
	hosts   nettest.Hosts
	places  map[string][]netip.Addr // where NodePorts are asked for: name -> addresses
	nodes   []*stageNode
	objects []runtime.Object // of the file served last
}

// stageNode is a node of the stage: the desired state and what keeps the kernel so.
type stageNode struct {
	name   string
	ns     *nettest.Namespace
	table  *service.Table
	plane  *nft.Plane
	kernel *nft.Netlink // what the plane commits by; nil at first
}

func newStage(t *testing.T) *stage {
	t.Helper()
	nettest.NeedRoot(t)
	w, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	s := &stage{
		t: t, world: w, places: map[string][]netip.Addr{},
		hosts: nettest.Hosts{Namespaces: map[string]*nettest.Namespace{}, Names: map[netip.Addr]string{}},
	}
	s.host("client", w.Client, nettest.ClientNet.Host(nettest.ClientHost))
	s.host("router", w.Router, nettest.NodeNet.Host(nettest.RouterHost))
	s.places["localhost"] = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for i, pods := range podsOf {
		s.node(i+1, pods)
	}
	for _, p := range []string{"10.96.0.0/16", "fd00:96::/112", "198.51.100.0/24", "2001:db8:51::/64"} {
		dst := netip.MustParsePrefix(p)
		s.must(w.Router.AddRoute(dst, nettest.NodeNet.Host(11).Addrs()[dst.Addr().BitLen()/128], ""))
	}
	return s
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) host(name string, n *nettest.Namespace, addrs ...nettest.Dual) {
	s.hosts.Namespaces[name] = n
	s.places[name] = addrs[0].Addrs()
	for _, d := range addrs {
		for _, a := range d.Addrs() {
			s.hosts.Names[a] = name
		}
	}
}

// node adds a node with pods, each an echo server, and routes to the pods of the other node.
func (s *stage) node(i int, pods []string) {
	name := fmt.Sprintf("node-%d", i)
	ns, err := s.world.AddHost(name, 10+i)
	s.must(err)
	gateway := nettest.PodNetOf(i).Host(1)
	s.host(name, ns, nettest.NodeNet.Host(10+i), gateway)
	s.places[name+"-pods"] = gateway.Addrs()
	for j, pod := range pods {
		s.pod(ns, pod, fmt.Sprintf("pod%d", j), nettest.PodNetOf(i).Host(2+j), gateway)
	}
	other := 3 - i
	for f, p := range nettest.PodNetOf(other).Prefixes() {
		s.must(ns.AddRoute(p, nettest.NodeNet.Host(10 + other).Addrs()[f], ""))
	}
	n := &stageNode{name: name, ns: ns}
	s.t.Cleanup(func() { n.end() })
	s.nodes = append(s.nodes, n)
}

func (s *stage) pod(node *nettest.Namespace, name, ifname string, addrs, gateway nettest.Dual) {
	ns, err := nettest.NewNamespace(name)
	s.must(err)
	s.t.Cleanup(func() { ns.Close() })
	s.must(nettest.AddPod(node, ns, ifname, addrs, gateway))
	s.host(name, ns, addrs)
	s.listen(name, echoPort)
}

// listen starts an echo server on a host.
func (s *stage) listen(host string, port uint16) {
	s.t.Helper()
	echo, err := nettest.StartEcho(s.hosts.Namespaces[host], host, port)
	s.must(err)
	s.t.Cleanup(func() { echo.Close() })
}

// begin gives a node a data plane that knows nothing of what the kernel holds, in the place of the one that it has.
func (s *stage) begin(n *stageNode, c nft.Config) {
	s.t.Helper()
	s.must(n.end())
	c.Families = []service.Family{service.IPv4, service.IPv6}
	c.MasqueradeMark = masqueradeBit
	c.NetNS = n.ns.FD()
	n.kernel = nft.NewNetlink(c)
	n.plane = nft.New(n.kernel)
}

// end lets go of the data plane; what the kernel holds stays.
func (n *stageNode) end() error {
	if n.kernel == nil {
		return nil
	}
	return n.kernel.Close()
}

// serve makes both nodes serve the objects of a file of testdata/packets, as a proxy does that has just been started.
// NodePorts are served at the node's own address. The functions may prepare each node's table.
func (s *stage) serve(file string, c nft.Config, prepare ...func(*stageNode)) {
	s.t.Helper()
	s.objects = s.read(file)
	s.start(c, append([]func(*stageNode){func(n *stageNode) {
		if problems := set(n.table, s.objects); problems != nil {
			s.t.Fatal(problems)
		}
	}}, prepare...)...)
}

// start makes both nodes serve what the functions put into their tables.
func (s *stage) start(c nft.Config, prepare ...func(*stageNode)) {
	s.t.Helper()
	for _, n := range s.nodes {
		n.table = service.NewTable(n.name)
		setNode(n.table, "", s.places[n.name])
		for _, f := range prepare {
			f(n)
		}
		s.begin(n, c)
		s.must(n.kernel.Check(context.Background()))
		s.must(n.plane.Replace(context.Background(), n.table.Changes()))
		s.forget(n)
	}
}

// forget deletes what a node remembers of earlier flows. A client may use a port again, and a flow that is known goes on
// as it began.
func (s *stage) forget(n *stageNode) {
	s.t.Helper()
	err := n.ns.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	s.must(err)
}

// forgetAll is forget for both nodes.
func (s *stage) forgetAll() {
	s.t.Helper()
	for _, n := range s.nodes {
		s.forget(n)
	}
}

// in is the stage for a subtest.
func (s *stage) in(t *testing.T) *stage {
	sub := *s
	sub.t = t
	return &sub
}

// change makes both nodes serve what a function changes in their tables; what exists goes on.
func (s *stage) change(fn func(*stageNode)) {
	s.t.Helper()
	for _, n := range s.nodes {
		fn(n)
		s.must(n.plane.Update(context.Background(), n.table.Changes()))
	}
}

// set replaces objects, as the API server tells of them.
func (s *stage) set(objects ...runtime.Object) {
	s.t.Helper()
	s.change(func(n *stageNode) {
		if problems := set(n.table, objects); problems != nil {
			s.t.Fatal(problems)
		}
	})
}

// setNode tells a table of its node: the zone, the addresses of the Node object, and that NodePorts are served there.
func setNode(table *service.Table, zone string, addrs []netip.Addr) {
	table.SetNode(service.Node{Zone: zone, Addrs: addrs})
	table.SetNodeAddrs(addrs)
}
