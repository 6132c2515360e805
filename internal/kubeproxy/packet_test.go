package kubeproxy_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/runtime"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

const (
	echoPort      = 8080
	masqueradeBit = 1 << 14
)

// stage is two nodes with pods and a client outside:
//
//	node-1: pod-1a, pod-1b     node-2: pod-2a
//
// Each node has its own data plane.
type stage struct {
	t     *testing.T
	world *nettest.World
	hosts nettest.Hosts
}

func newStage(t *testing.T) *stage {
	t.Helper()
	nettest.NeedRoot(t)
	w, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, world: w, hosts: nettest.Hosts{Namespaces: map[string]*nettest.Namespace{}, Names: map[netip.Addr]string{}}}
	t.Cleanup(func() { w.Close() })
	s.host("client", w.Client, nettest.ClientNet.Host(nettest.ClientHost))
	s.host("router", w.Router, nettest.NodeNet.Host(nettest.RouterHost))
	for i, pods := range [][]string{{"pod-1a", "pod-1b"}, {"pod-2a"}} {
		s.node(i+1, pods)
	}
	// What is routed to the cluster from outside arrives at node-1.
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
	for _, d := range addrs {
		for _, a := range d.Addrs() {
			s.hosts.Names[a] = name
		}
	}
}

// node adds a node with pods, each an echo server, and routes to the pods of the other nodes.
func (s *stage) node(i int, pods []string) {
	name := fmt.Sprintf("node-%d", i)
	node, err := s.world.AddHost(name, 10+i)
	s.must(err)
	gateway := nettest.PodNetOf(i).Host(1)
	s.host(name, node, nettest.NodeNet.Host(10+i), gateway)
	for j, pod := range pods {
		ns, err := nettest.NewNamespace(pod)
		s.must(err)
		s.t.Cleanup(func() { ns.Close() })
		addrs := nettest.PodNetOf(i).Host(2 + j)
		s.must(nettest.AddPod(node, ns, fmt.Sprintf("pod%d", j), addrs, gateway))
		s.host(pod, ns, addrs)
		echo, err := nettest.StartEcho(ns, pod, echoPort)
		s.must(err)
		s.t.Cleanup(func() { echo.Close() })
	}
	for k := range 2 {
		if other := k + 1; other != i {
			for f, p := range nettest.PodNetOf(other).Prefixes() {
				s.must(node.AddRoute(p, nettest.NodeNet.Host(10 + other).Addrs()[f], ""))
			}
		}
	}
}

// listen starts an echo server on a host.
func (s *stage) listen(host string, port uint16) {
	s.t.Helper()
	echo, err := nettest.StartEcho(s.hosts.Namespaces[host], host, port)
	s.must(err)
	s.t.Cleanup(func() { echo.Close() })
}

// plane returns a data plane for a node.
func (s *stage) plane(node string, c nft.Config) *nft.Plane {
	c.Families = []service.Family{service.IPv4, service.IPv6}
	c.MasqueradeMark = masqueradeBit
	c.NetNS = s.hosts.Namespaces[node].FD()
	kernel := nft.NewNetlink(c)
	s.must(kernel.Check(context.Background()))
	return nft.New(kernel)
}

// objects reads a file of testdata/packets.
func (s *stage) objects(file string) []runtime.Object {
	s.t.Helper()
	text, err := os.ReadFile("testdata/packets/" + file)
	s.must(err)
	return decode(s.t, txtar.Parse(text).Files[0].Data)
}

// serve makes both nodes serve the objects of a file of testdata/packets.
func (s *stage) serve(file string, c nft.Config) {
	s.t.Helper()
	objects := s.objects(file)
	for i := range 2 {
		node := fmt.Sprintf("node-%d", i+1)
		table := service.NewTable(node)
		if problems := set(table, objects); problems != nil {
			s.t.Fatal(problems)
		}
		table.SetNodeAddrs(nettest.NodeNet.Host(11 + i).Addrs())
		s.must(s.plane(node, c).Replace(context.Background(), table.Changes()))
	}
}

// rows repeats a row for both protocols and families. to is a pair of addresses, IPv4 and IPv6.
func rows(from string, to [2]string, want nettest.Verdict) (out []nettest.Row) {
	for _, protocol := range []string{"tcp", "udp"} {
		for _, a := range to {
			out = append(out, nettest.Row{From: from, To: netip.MustParseAddrPort(a), Protocol: protocol, Want: want})
		}
	}
	return out
}

func TestPackets(t *testing.T) {
	s := newStage(t)
	// Of each family the first network counts, as upstream.
	pods := []netip.Prefix{nettest.PodNet.V4, nettest.PodNet.V6, netip.MustParsePrefix("192.0.2.0/24")}
	s.serve("services.txtar", nft.Config{ClusterCIDRs: pods})

	web := [2]string{"10.96.0.20:80", "[fd00:96::20]:80"}
	all := func(source string) nettest.Verdict {
		return nettest.Verdict{Backends: []string{"pod-1a", "pod-1b", "pod-2a"}, Source: source}
	}
	one := func(backend, source string) nettest.Verdict {
		return nettest.Verdict{Backends: []string{backend}, Source: source}
	}
	var table []nettest.Row
	add := func(from string, to [2]string, want nettest.Verdict) { table = append(table, rows(from, to, want)...) }

	// ClusterIP: pods keep their address, others are masqueraded.
	add("node-1", web, all("node-1"))
	add("client", web, all("node-1"))
	add("pod-2a", [2]string{"10.96.0.21:80", "[fd00:96::21]:80"}, one("pod-1a", "pod-2a"))
	// Hairpin: a pod that reaches itself through a Service is seen as the node.
	add("pod-1a", [2]string{"10.96.0.21:80", "[fd00:96::21]:80"}, one("pod-1a", "node-1"))
	// NodePort, at any node, from anywhere: masqueraded.
	for _, node := range []string{"10.240.0.11", "10.240.0.12"} {
		name := map[string]string{"10.240.0.11": "node-1", "10.240.0.12": "node-2"}[node]
		v6 := map[string]string{"10.240.0.11": "fd00:240::b", "10.240.0.12": "fd00:240::c"}[node]
		at := [2]string{node + ":30080", "[" + v6 + "]:30080"}
		add("client", at, all(name))
	}
	add("node-1", [2]string{"10.240.0.11:30080", "[fd00:240::b]:30080"}, all("node-1"))
	add("pod-1b", [2]string{"10.240.0.11:30081", "[fd00:240::b]:30081"}, one("pod-1a", "node-1"))
	// Load-balancer and external IPs.
	add("client", [2]string{"198.51.100.10:80", "[2001:db8:51::10]:80"}, all("node-1"))
	add("client", [2]string{"198.51.100.20:80", "[2001:db8:51::20]:80"}, all("node-1"))
	add("pod-2a", [2]string{"198.51.100.10:81", "[2001:db8:51::10]:81"}, one("pod-1a", "node-2"))
	// Without endpoints, refused at once, from everywhere.
	empty := [2]string{"10.96.0.30:80", "[fd00:96::30]:80"}
	for _, from := range []string{"pod-1a", "node-2", "client"} {
		add(from, empty, nettest.Verdict{Reject: true})
	}
	add("client", [2]string{"198.51.100.30:80", "[2001:db8:51::30]:80"}, nettest.Verdict{Reject: true})
	add("client", [2]string{"10.240.0.12:30090", "[fd00:240::c]:30090"}, nettest.Verdict{Reject: true})
	add("node-1", [2]string{"10.240.0.11:30090", "[fd00:240::b]:30090"}, nettest.Verdict{Reject: true})
	// Something else listens on the node at the numbers of two NodePorts. Connections to a NodePort without endpoints do not
	// reach it, those to an address that serves no NodePorts do, and those that only pass the node go on.
	for _, port := range []uint16{30080, 30090} {
		s.listen("node-1", port)
	}
	add("client", [2]string{"10.240.0.11:30090", "[fd00:240::b]:30090"}, nettest.Verdict{Reject: true})
	add("pod-1a", [2]string{"10.244.1.1:30080", "[fd00:244:0:1::1]:30080"}, one("node-1", "pod-1a"))
	s.listen("pod-2a", 30080)
	add("pod-1a", [2]string{"10.244.2.2:30080", "[fd00:244:0:2::2]:30080"}, one("pod-2a", "pod-1a"))
	nettest.RunTable(t, s.hosts, table)
}

// TestConnectionsOutliveRejection keeps connections open while what they go to becomes a frontend without endpoints: one
// through a Service, one straight to the node at an address that a Service then claims. Only new ones are refused.
func TestConnectionsOutliveRejection(t *testing.T) {
	s := newStage(t)
	through, straight := netip.MustParseAddrPort("10.96.0.99:80"), netip.MustParseAddrPort("10.240.0.11:9000")
	port := func(frontends []service.Frontend, backends ...service.Backend) *service.Port {
		key := service.Key{Service: service.Name{Namespace: "test", Name: "long"}, Protocol: service.TCP, Family: service.IPv4}
		return &service.Port{Key: key, Frontends: frontends, Backends: backends}
	}
	frontends := []service.Frontend{{Kind: service.ClusterIP, Addr: through}, {Kind: service.ExternalIP, Addr: straight}}
	before := port(frontends[:1], service.Backend{Addr: netip.MustParseAddrPort("10.244.1.2:9000")})
	plane := s.plane("node-1", nft.Config{})
	s.must(plane.Replace(t.Context(), service.Changes{Ports: []service.Change{{New: before}}}))

	alive := []func(){s.connect("pod-1b", "pod-1a", through), s.connect("client", "node-1", straight)}
	s.must(plane.Update(t.Context(), service.Changes{Ports: []service.Change{{Old: before, New: port(frontends)}}}))
	for _, still := range alive {
		still()
	}
	rejected := nettest.Verdict{Reject: true}
	nettest.RunTable(t, s.hosts, []nettest.Row{
		{From: "pod-1b", To: through, Protocol: "tcp", Want: rejected},
		{From: "client", To: straight, Protocol: "tcp", Want: rejected},
	})
}

// connect opens a connection to an echo of lines at port 9000 of a host. The function returned checks that it answers.
func (s *stage) connect(from, host string, to netip.AddrPort) (still func()) {
	s.t.Helper()
	l, err := s.hosts.Namespaces[host].Listen("tcp", "[::]:9000")
	s.must(err)
	s.t.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c)
		}
	}()
	c, err := s.hosts.Namespaces[from].DialContext(s.t.Context(), "tcp", to.String())
	s.must(err)
	s.t.Cleanup(func() { c.Close() })
	s.must(c.SetDeadline(time.Now().Add(10 * time.Second)))
	still = func() {
		s.t.Helper()
		_, err := io.WriteString(c, "hello")
		s.must(err)
		_, err = io.ReadFull(c, make([]byte, 5))
		s.must(err)
	}
	still()
	return still
}

// TestMarkIsCleared looks at the marks of packets that leave the node masqueraded: the bit that asked for it must be gone,
// and all others as they were, because routing and other tables may read them.
func TestMarkIsCleared(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", nft.Config{})
	const other = 0x10
	seen := s.countMarks("node-1", other, other, other|masqueradeBit)
	nettest.RunTable(t, s.hosts, []nettest.Row{{
		From: "client", To: netip.MustParseAddrPort("10.240.0.11:30080"), Protocol: "udp",
		Want: nettest.Verdict{Backends: []string{"pod-1a", "pod-1b", "pod-2a"}, Source: "node-1"},
	}})
	if clear, set := seen(); clear == 0 || set != 0 {
		t.Errorf("of the packets to backends %d left with the mark cleared, %d with it set", clear, set)
	}
}

func TestPacketsMasqueradeAll(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", nft.Config{MasqueradeAll: true})
	want := nettest.Verdict{Backends: []string{"pod-1a"}, Source: "node-2"}
	nettest.RunTable(t, s.hosts, rows("pod-2a", [2]string{"10.96.0.21:80", "[fd00:96::21]:80"}, want))
}

func TestPacketsWithoutClusterCIDR(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", nft.Config{})
	// Nothing to a ClusterIP is masqueraded, as upstream; the client's answers come back only if the way back passes
	// the same node, as it does for a backend on node-1.
	want := nettest.Verdict{Backends: []string{"pod-1a"}, Source: "client"}
	nettest.RunTable(t, s.hosts, rows("client", [2]string{"10.96.0.21:80", "[fd00:96::21]:80"}, want))
}
