package demo

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"varco.dev/lab/internal/controlplane"
)

// Places of requests.
const (
	fromPod       = "pod"
	fromNode      = "last node"
	fromFirstNode = "first node" // the pinned pods are on it, and external addresses lead to it
	fromClient    = "client"
	fromItself    = "own pod" // a pod of the Service that it asks
)

// localhost is where NodePorts are served for programs of the node. That they are served at ::1 too, by a relay in user
// space, is not shown here.
var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// scene is what the plan depends on: the demo's objects as the API server has them.
type scene struct {
	services     map[string]*corev1.Service
	nodes        []corev1.Node // sorted by name
	echo, pinned []corev1.Pod
}

func (s *scene) first() *corev1.Node { return &s.nodes[0] }
func (s *scene) last() *corev1.Node  { return &s.nodes[len(s.nodes)-1] }

// plan lists the ways: which addresses are asked from where, and what must come of it.
func (s *scene) plan() []way {
	return slices.Concat(s.kinds(), s.policies(), s.choices(), s.closed())
}

// row is a way for each of some places.
type row struct {
	kind, protocol string
	to             []netip.AddrPort
	want           want
	from           []string
}

func ways(rows []row) []way {
	var all []way
	for _, r := range rows {
		for _, from := range r.from {
			all = append(all, way{from, r.kind, r.protocol, r.to, r.want})
		}
	}
	return all
}

// kinds asks addresses of all kinds.
func (s *scene) kinds() []way {
	all := want{pods: names(s.echo)}
	masked := want{pods: names(s.echo), source: hidden}
	web := s.at(addrsOf(s.first()), nodePort(s.services["echo-nodeport"], "http"))
	udp := s.at(addrsOf(s.first()), nodePort(s.services["echo-nodeport"], "udp"))
	return ways([]row{
		{"ClusterIP", "http", s.clusterIPs("echo", 80), all, []string{fromPod, fromNode, fromItself}},
		{"ClusterIP", "tcp", s.clusterIPs("echo", 7000), all, []string{fromPod, fromNode}},
		{"ClusterIP", "udp", s.clusterIPs("echo", 7000), all, []string{fromPod, fromNode}},
		{"ClusterIP", "sctp", s.clusterIPs("echo", 7001), all, []string{fromPod, fromNode}},
		{"NodePort", "http", web, all, []string{fromPod, fromNode}},
		{"NodePort", "http", web, masked, []string{fromClient}},
		{"NodePort", "udp", udp, masked, []string{fromClient}},
		{"NodePort at localhost", "http", s.at([]netip.Addr{localhost}, nodePort(s.services["echo-nodeport"], "http")), all, []string{fromNode}},
		{"load balancer", "http", s.balancer("echo-lb"), all, []string{fromPod, fromNode}},
		{"load balancer", "http", s.balancer("echo-lb"), masked, []string{fromClient}},
		{"external IP", "http", s.externals("echo-external"), all, []string{fromPod, fromClient}},
	})
}

// policies asks Services whose traffic policies are Local. On one node alone there is none without a pod.
func (s *scene) policies() []way {
	both := want{pods: names(s.pinned)}
	seen := want{pods: names(s.pinned), source: kept}
	port := nodePort(s.services["local"], "http")
	inside := s.clusterIPs("internal-local", 80)
	rows := []row{
		{"load balancer, external Local", "http", s.balancer("local"), seen, []string{fromClient, fromPod}},
		{"load balancer, external Local", "http", s.balancer("local"), both, []string{fromNode}},
		{"NodePort, external Local", "http", s.at(addrsOf(s.first()), port), seen, []string{fromClient}},
		{"ClusterIP, internal Local", "http", inside, both, []string{fromFirstNode}},
	}
	if len(s.nodes) > 1 {
		rows = append(rows,
			row{"NodePort, external Local", "http", s.at(addrsOf(s.last()), port), want{ending: dropped}, []string{fromClient}},
			row{"ClusterIP, internal Local", "http", inside, want{ending: dropped}, []string{fromNode}})
	}
	return ways(rows)
}

// choices asks Services whose backends are not chosen at random.
func (s *scene) choices() []way {
	same := want{pods: names(s.echo), one: true}
	sticky := slices.Concat(s.clusterIPs("sticky", 80), s.externals("sticky"))
	var hashed []netip.AddrPort
	for i := range s.nodes {
		hashed = append(hashed, s.at(addrsOf(&s.nodes[i]), nodePort(s.services["hashed"], "http"))...)
	}
	zonal := s.clusterIPs("zonal", 80)
	return ways([]row{
		{"session affinity", "http", sticky, same, []string{fromPod}},
		{"session affinity", "http", s.externals("sticky"), same, []string{fromClient}},
		{"hash of the source, all nodes", "http", hashed, same, []string{fromClient}},
		{"Maglev", "http", s.clusterIPs("maglev", 80), want{pods: names(s.echo)}, []string{fromPod}},
		{"same zone preferred", "http", zonal, want{pods: s.inZone(s.first())}, []string{fromFirstNode}},
		{"same zone preferred", "http", zonal, want{pods: s.inZone(s.last())}, []string{fromNode}},
	})
}

// undefinedPort is one that the Service echo does not have.
const undefinedPort = 81

// closed asks what must not be answered.
func (s *scene) closed() []way {
	no, nothing := want{ending: refused}, want{ending: dropped}
	unused := make([]netip.Addr, 0, 2) // no Service ever gets the first address of a network
	for _, p := range controlplane.ServiceNet.Prefixes() {
		unused = append(unused, p.Masked().Addr())
	}
	return ways([]row{
		{"source in ranges", "http", s.balancer("guarded"), want{pods: names(s.echo)}, []string{fromNode}},
		{"source not in ranges", "http", s.balancer("guarded"), nothing, []string{fromClient, fromPod}},
		{"no endpoints", "http", s.clusterIPs("empty", 80), no, []string{fromPod, fromNode}},
		{"undefined port", "http", s.clusterIPs("echo", undefinedPort), no, []string{fromPod, fromNode}},
		{"unallocated ClusterIP", "http", s.at(unused, 80), nothing, []string{fromPod}},
	})
}

// flows are the checks that go on while pods come and go: each place, each family.
func (s *scene) flows() []check {
	var flows []check
	for _, w := range s.kinds() {
		inside := w.kind == "ClusterIP" && (w.from == fromPod || w.from == fromNode)
		outside := w.kind == "load balancer" && w.from == fromClient
		if w.protocol == "http" && (inside || outside) {
			flows = append(flows, w.checks()...)
		}
	}
	return flows
}

// inZone returns the pods of the Deployment echo in the zone of a node; all if there is none.
func (s *scene) inZone(n *corev1.Node) []string {
	zones := map[string]string{}
	for _, n := range s.nodes {
		zones[n.Name] = n.Labels[corev1.LabelTopologyZone]
	}
	near := slices.DeleteFunc(slices.Clone(s.echo), func(p corev1.Pod) bool { return zones[p.Spec.NodeName] != zones[n.Name] })
	if len(near) == 0 {
		near = s.echo
	}
	return names(near)
}

func names(pods []corev1.Pod) []string {
	var all []string
	for _, p := range pods {
		all = append(all, p.Name)
	}
	return all
}

func (s *scene) at(addrs []netip.Addr, port uint16) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range addrs {
		all = append(all, netip.AddrPortFrom(a, port))
	}
	return all
}

func (s *scene) clusterIPs(service string, port uint16) []netip.AddrPort {
	return s.at(parse(s.services[service].Spec.ClusterIPs), port)
}

func (s *scene) externals(service string) []netip.AddrPort {
	return s.at(parse(s.services[service].Spec.ExternalIPs), 80)
}

func (s *scene) balancer(service string) []netip.AddrPort {
	var texts []string
	for _, i := range s.services[service].Status.LoadBalancer.Ingress {
		texts = append(texts, i.IP)
	}
	return s.at(parse(texts), 80)
}

func addrsOf(n *corev1.Node) []netip.Addr {
	var texts []string
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			texts = append(texts, a.Address)
		}
	}
	return parse(texts)
}

func parse(texts []string) []netip.Addr {
	var as []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			as = append(as, a)
		}
	}
	return as
}

func nodePort(s *corev1.Service, name string) uint16 {
	for _, p := range s.Spec.Ports {
		if p.Name == name {
			return uint16(p.NodePort)
		}
	}
	return 0
}
