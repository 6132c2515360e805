package objects

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"varco.dev/bench/internal/world"
)

// Names and limits of the objects.
const (
	// Namespace of all objects.
	Namespace = "bench"
	// NodeName is the name of the node that the proxies under test are told to be.
	NodeName = "bench-node"
	// ServicePort is the port of all Services.
	ServicePort = 80
	// PerService is the number of endpoints of each of the many Services.
	PerService = 2
	// MaxServices is how many Services there can be: two endpoints of each fill the network of a side.
	MaxServices = 32000
	// Many is the number of endpoints of Plain and Sticky.
	Many = 100
)

// Two Services have many endpoints, and Sticky has session affinity too. Their numbers follow those of all others.
const (
	Plain  = MaxServices
	Sticky = MaxServices + 1
)

// firstIP is the number within the Service network of the first Service's address. The API server has the first few.
const firstIP = 256

// Name of Service number i and of its EndpointSlice.
func Name(i int) string { return fmt.Sprintf("service-%05d", i) }

// ClusterIP is where Service number i is reached.
func ClusterIP(i int) netip.AddrPort {
	return netip.AddrPortFrom(within(world.ServiceCIDR, firstIP+i), ServicePort)
}

// Endpoint is where endpoint number n, from 0, of one of the many Services is on a side.
func Endpoint(i, n int, side world.Side) netip.AddrPort {
	return netip.AddrPortFrom(within(side.Net(), 1+PerService*i+n), world.EndpointPort)
}

func within(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}

// Service returns Service number i.
func Service(i int) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Name(i), Labels: map[string]string{"app": Name(i)}},
		Spec: corev1.ServiceSpec{
			ClusterIP:      ClusterIP(i).Addr().String(),
			IPFamilies:     []corev1.IPFamily{corev1.IPv4Protocol},
			IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack),
			Ports:          []corev1.ServicePort{{Name: "http", Port: ServicePort, Protocol: corev1.ProtocolTCP}},
		},
	}
	if i == Sticky {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	}
	return s
}

// Slice returns the EndpointSlice of Service number i with all endpoints on one side. It has what a controller would
// write, because proxies keep much of it in memory.
func Slice(i int, side world.Side) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Name(i), Labels: map[string]string{
			discoveryv1.LabelServiceName: Name(i), discoveryv1.LabelManagedBy: "varco-bench"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](world.EndpointPort),
			Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for n := range endpoints(i) {
		s.Endpoints = append(s.Endpoints, endpoint(i, n, side))
	}
	return s
}

func endpoints(i int) int {
	if i >= MaxServices {
		return Many
	}
	return PerService
}

func endpoint(i, n int, side world.Side) discoveryv1.Endpoint {
	address := Endpoint(i, n, side).Addr()
	if i >= MaxServices {
		address = Endpoint(n, 0, side).Addr() // shared with other Services: the side has no more addresses
	}
	return discoveryv1.Endpoint{
		Addresses:  []string{address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
		NodeName:   ptr.To(fmt.Sprintf("node-%d", n%100)),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: Namespace,
			Name: fmt.Sprintf("%s-%d%c", Name(i), n, side.Name()),
			UID:  types.UID(fmt.Sprintf("00000000-0000-4000-8%03x-%012x", n, i))},
	}
}

// Node returns the Node of the proxies under test. Its status is written apart.
func Node() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: NodeName},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: world.NodeAddr.String()}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}
