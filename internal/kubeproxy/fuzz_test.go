package kubeproxy_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/service"
)

// play is a source of random objects of the API over few names and addresses, valid and not: Services with all that they
// may ask for, their slices, the Node, and the networks of ClusterIPs.
type play struct{ *rand.Rand }

func newPlay(seed uint64) play { return play{rand.New(rand.NewPCG(seed, 7))} }

// next returns an object, and whether it is to be set or deleted.
func (r play) next() (obj runtime.Object, gone bool) {
	switch n := r.IntN(20); {
	case n < 7:
		return r.service(), r.IntN(5) == 0
	case n < 17:
		return r.slice(), r.IntN(6) == 0
	case n < 18:
		return r.node(), false
	default:
		return r.cidr(), r.IntN(3) == 0
	}
}

// pick returns one of some values; mostly the first one, so that not too much is wrong at once.
func pick[V any](r play, values ...V) V {
	if r.IntN(5) > 0 {
		return values[0]
	}
	return values[r.IntN(len(values))]
}

func (r play) meta(kind string, n int) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "x", Name: fmt.Sprint(kind, r.IntN(n)), Labels: map[string]string{}, Annotations: map[string]string{},
		CreationTimestamp: metav1.Unix(int64(1+r.IntN(3)), 0),
	}
}

func (r play) ip4(net string, n int) string { return fmt.Sprintf("%s.%d", net, 1+r.IntN(n)) }

func (r play) ip6(net string, n int) string { return fmt.Sprintf("%s::%x", net, 1+r.IntN(n)) }

func (r play) service() *corev1.Service {
	s := &corev1.Service{ObjectMeta: r.meta("s", 5)}
	r.addresses(s)
	for i := range 1 + r.IntN(3) {
		p := corev1.ServicePort{
			Name: pick(r, fmt.Sprint("p", i), "p0"), Port: pick(r, int32(80), 81, 0, -1, 65535),
			Protocol: pick(r, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "", "ICMP"),
			NodePort: pick(r, int32(30000), 30001, 30002, 0, 0, 70000),
		}
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	local := corev1.ServiceInternalTrafficPolicyLocal
	s.Spec.InternalTrafficPolicy = []*corev1.ServiceInternalTrafficPolicy{nil, nil, &local}[r.IntN(3)]
	s.Spec.ExternalTrafficPolicy = []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceExternalTrafficPolicyCluster, ""}[r.IntN(3)]
	s.Spec.HealthCheckNodePort = pick(r, int32(0), 32000, 32001)
	if r.IntN(3) == 0 {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		seconds := pick(r, int32(10800), 1, 0, -5, 1<<30)
		s.Spec.SessionAffinityConfig = pick(r, &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}, nil, &corev1.SessionAffinityConfig{})
	}
	for range r.IntN(3) {
		s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges,
			[]string{"172.16.0.0/12", " 172.17.1.1/24", "fd00::/8", "0.0.0.0/0", "nonsense", soleAddr4 + "/32"}[r.IntN(6)])
	}
	if b := []string{"", "hash-source-ip", "random", "nonsense"}[r.IntN(4)]; b != "" {
		s.Annotations[apiwatch.AnnotationBalance] = b
	}
	if w := []string{"", "node/node-1=3", "10.244.0.1=0,10.244.0.2=5", "zone/zone-a=2,=,x=y,node/=1", "10.244.0.1=70000"}[r.IntN(5)]; w != "" {
		s.Annotations[apiwatch.AnnotationWeights] = w
	}
	if r.IntN(15) == 0 {
		s.Labels["service.kubernetes.io/service-proxy-name"] = "other"
	}
	return s
}

func (r play) addresses(s *corev1.Service) {
	s.Spec.Type = pick(r, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeExternalName, "")
	four, six := r.ip4("10.96.0", 6), r.ip6("fd00:96", 6)
	s.Spec.ClusterIPs = pick(r, []string{four, six}, []string{four}, []string{six}, []string{six, four}, nil, []string{"None"}, []string{"x"})
	if len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	for _, ip := range s.Spec.ClusterIPs {
		family := corev1.IPv4Protocol
		if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
			family = corev1.IPv6Protocol
		}
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, family)
	}
	for range r.IntN(3) {
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, pick(r, r.ip4("10.96.0", 8), r.ip6("fd00:98", 3), "010.096.000.003", "", "127.0.0.1", "0.0.0.0", "::ffff:10.96.0.2"))
	}
	proxy, vip := corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP
	for range r.IntN(3) {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress,
			corev1.LoadBalancerIngress{IP: pick(r, r.ip4("10.98.0", 3), r.ip6("fd00:98", 3), "", "x"), IPMode: pick(r, nil, &proxy, &vip)})
	}
}

func (r play) slice() *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: r.meta("l", 9), AddressType: []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, pick(r, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeFQDN, "")}[r.IntN(3)]}
	s.Labels[discoveryv1.LabelServiceName] = pick(r, fmt.Sprint("s", r.IntN(5)), "", "nobody")
	for i := range pick(r, 3, 2, 1, 0) {
		name, port, protocol := fmt.Sprint("p", i), pick(r, int32(8080), 8081, 0, -1), pick(r, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "")
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: pick(r, &name, nil), Port: pick(r, &port, nil), Protocol: pick(r, &protocol, nil)})
	}
	hinted := r.IntN(3) == 0
	for range r.IntN(5) {
		s.Endpoints = append(s.Endpoints, r.endpoint(s.AddressType, hinted))
	}
	if at := pick(r, "", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "yesterday"); at != "" {
		s.Annotations[corev1.EndpointsLastChangeTriggerTime] = at
	}
	return s
}

func (r play) endpoint(kind discoveryv1.AddressType, hinted bool) (e discoveryv1.Endpoint) {
	ip := r.ip4("10.244.0", 6)
	if kind == discoveryv1.AddressTypeIPv6 {
		ip = r.ip6("fd00:244", 6)
	}
	e.Addresses = pick(r, []string{ip}, []string{ip, r.ip4("10.244.0", 6)}, nil, []string{"x"}, []string{"127.0.0.1"}, []string{"10.244.0.007"})
	yes, no := true, false
	e.Conditions = discoveryv1.EndpointConditions{Ready: pick(r, nil, &no, &yes), Serving: pick(r, nil, &yes, &no), Terminating: pick(r, nil, &yes, &no)}
	node := []string{"node-1", "node-2"}[r.IntN(2)]
	e.NodeName = pick(r, &node, nil)
	if zone := []string{"zone-a", "zone-b"}[r.IntN(2)]; hinted {
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
		if r.IntN(3) == 0 {
			e.Hints.ForNodes = []discoveryv1.ForNode{{Name: node}}
		}
	}
	return e
}

func (r play) node() *corev1.Node {
	n := soleNode()
	n.Labels[corev1.LabelTopologyZone] = pick(r, "zone-a", "zone-b", "")
	if r.IntN(3) == 0 {
		n.Status.Addresses[0].Address = r.ip4("10.240.0", 3)
	}
	return n
}

func (r play) cidr() *networkingv1.ServiceCIDR {
	c := &networkingv1.ServiceCIDR{ObjectMeta: r.meta("c", 3)}
	c.Namespace = ""
	for range r.IntN(3) {
		c.Spec.CIDRs = append(c.Spec.CIDRs, pick(r, "10.96.0.0/16", "fd00:96::/112", "10.96.0.0/12", "10.97.0.0/24", "x"))
	}
	return c
}

// memory is the objects that there are, by kind and name.
type memory map[string]runtime.Object

func (m memory) take(obj runtime.Object, gone bool) {
	kind, _, _ := kindOf(obj)
	key := kind + "/" + keyOf(obj.(metav1.Object))
	if delete(m, key); !gone {
		m[key] = obj
	}
}

// tell changes a table as the watcher does when an object is set or deleted.
func (m memory) tell(table *service.Table, obj runtime.Object, gone bool) {
	m.take(obj, gone)
	switch o := obj.(type) {
	case *corev1.Service:
		if s, ok, _ := apiwatch.Service(o); ok && !gone {
			table.SetService(s)
		} else {
			table.DeleteService(service.Name{Namespace: o.Namespace, Name: o.Name})
		}
	case *discoveryv1.EndpointSlice:
		if s, ok, _ := apiwatch.Slice(o); ok && !gone {
			table.SetSlice(s)
		} else {
			table.DeleteSlice(service.Name{Namespace: o.Namespace, Name: o.Name})
		}
	case *corev1.Node:
		n, _ := apiwatch.NodeOf(o)
		table.SetNode(n.Table())
		table.SetNodeAddrs(n.Addrs)
	case *networkingv1.ServiceCIDR:
		var all []netip.Prefix
		for _, other := range m {
			if c, ok := other.(*networkingv1.ServiceCIDR); ok {
				cidrs, _ := apiwatch.CIDRs(c)
				all = append(all, cidrs...)
			}
		}
		table.SetCIDRs(all)
	}
}

// fresh computes from nothing what objects ask for.
func fresh(objects ...runtime.Object) service.Changes {
	table, m := service.NewTable("node-1"), memory{}
	for _, obj := range objects {
		m.tell(table, obj, false)
	}
	return table.Changes()
}

func (m memory) all() (out []runtime.Object) {
	for _, obj := range m {
		out = append(out, obj)
	}
	return out
}

// act lets a play go on for some steps, and compares after each what came of it step by step with what comes from nothing.
// It returns what is held in the end.
func act(t *testing.T, r play, steps func() bool) nft.Content {
	t.Helper()
	table, m, kernel := service.NewTable("node-1"), memory{}, counted{&nfttest.Kernel{}}
	plane := nft.New(kernel)
	if err := plane.Replace(t.Context(), table.Changes()); err != nil {
		t.Fatal(err)
	}
	for step := 0; steps(); step++ {
		obj, gone := r.next()
		m.tell(table, obj, gone)
		changes := table.Changes()
		if err := plane.Update(t.Context(), changes); err != nil {
			t.Fatalf("step %d, %T %+v: %v", step, obj, obj, err)
		}
		want := fresh(m.all()...)
		if diff := cmp.Diff(string(describe(want)), string(describe(table.All()))); diff != "" {
			t.Fatalf("step %d, %T %+v: desired state (-fresh +incremental)\n%s", step, obj, obj, diff)
		}
		if diff := cmp.Diff(meaning(t, want, counting), held(t, kernel)); diff != "" {
			t.Fatalf("step %d, %T %+v: kernel (-fresh +incremental)\n%s", step, obj, obj, diff)
		}
	}
	c, err := kernel.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestObjectsEqualFresh is what FuzzObjects does, with plays of which each test sees the same.
func TestObjectsEqualFresh(t *testing.T) {
	seen := map[nft.Set]bool{}
	for seed := range uint64(30) {
		left := 100
		for _, e := range act(t, newPlay(seed), func() bool { left--; return left > 0 }).Elements {
			seen[e.Set] = true
		}
	}
	for set := range nft.Generations {
		// Without NodePorts at loopback addresses, or at all, nothing is in these.
		if !seen[set] && set != nft.NodeTypes {
			t.Errorf("no play has led to anything in %s", set)
		}
	}
}

// tape is a source of random numbers that are given, a byte each; then come others.
type tape struct {
	bytes []byte
	rest  rand.Source
}

func (s *tape) Uint64() uint64 {
	if len(s.bytes) == 0 {
		return s.rest.Uint64()
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return binary.NativeEndian.Uint64([]byte{b, b, b, b, b, b, b, b})
}

// FuzzObjects plays what the bytes say.
func FuzzObjects(f *testing.F) {
	for seed := range uint64(4) {
		r, text := newPlay(seed), make([]byte, 200)
		for i := range text {
			text[i] = byte(r.Uint32())
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		const most = 4096 // bytes: what takes a tenth of a second
		source := &tape{text[:min(len(text), most)], rand.NewPCG(1, 1)}
		act(t, play{rand.New(source)}, func() bool { return len(source.bytes) > 0 })
	})
}
