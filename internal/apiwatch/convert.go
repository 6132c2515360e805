package apiwatch

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netutils "k8s.io/utils/net"

	"varco.dev/internal/service"
)

// Service converts a Service. ok is false for those that are not ours to serve: without a ClusterIP, or of type
// ExternalName even if it has one. Parts that are not valid are left out and named in problems.
func Service(s *corev1.Service) (out *service.Service, ok bool, problems []error) {
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil, false, nil
	}
	c := converter{}
	out = &service.Service{
		Name:        service.Name{Namespace: s.Namespace, Name: s.Name},
		Created:     s.CreationTimestamp.Time,
		ClusterIPs:  c.addrs("spec.clusterIPs", clusterIPs(s)),
		ExternalIPs: c.addrs("spec.externalIPs", s.Spec.ExternalIPs),
	}
	var ingress []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		// ipMode Proxy: the load balancer wants to see the traffic itself (KEP-1860).
		if i.IP != "" && (i.IPMode == nil || *i.IPMode == corev1.LoadBalancerIPModeVIP) {
			ingress = append(ingress, i.IP)
		}
	}
	out.LoadBalancerIPs = c.addrs("status.loadBalancer.ingress", ingress)
	for _, p := range s.Spec.Ports {
		if port, ok := c.servicePort(p); ok {
			out.Ports = append(out.Ports, port)
		}
	}
	return out, true, c.problems
}

func clusterIPs(s *corev1.Service) []string {
	if len(s.Spec.ClusterIPs) == 0 {
		return []string{s.Spec.ClusterIP}
	}
	return s.Spec.ClusterIPs
}

// Slice converts an EndpointSlice. ok is false for those that belong to no Service or hold names instead of addresses.
func Slice(s *discoveryv1.EndpointSlice) (out *service.Slice, ok bool, problems []error) {
	owner := s.Labels[discoveryv1.LabelServiceName]
	if owner == "" || (s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6) {
		return nil, false, nil
	}
	c := converter{}
	out = &service.Slice{
		Name:    service.Name{Namespace: s.Namespace, Name: s.Name},
		Service: service.Name{Namespace: s.Namespace, Name: owner},
	}
	for _, p := range s.Ports {
		if p.Port == nil || *p.Port == 0 || p.Name == nil {
			continue // any port: not a proxy's business
		}
		protocol, ok := c.protocol("ports.protocol", deref(p.Protocol, corev1.ProtocolTCP))
		if port, valid := c.port("ports.port", *p.Port); ok && valid {
			out.Ports = append(out.Ports, service.SlicePort{Name: *p.Name, Protocol: protocol, Port: port})
		}
	}
	for _, e := range s.Endpoints {
		if endpoint, ok := c.endpoint(e, s.AddressType); ok {
			out.Endpoints = append(out.Endpoints, endpoint)
		}
	}
	return out, true, c.problems
}

// NodeAddrs returns the addresses of a node that stand for it, at most one per family: the first internal one, else the
// first external one.
func NodeAddrs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, family := range []service.Family{service.IPv4, service.IPv6} {
		if a, ok := nodeAddr(n, family); ok {
			out = append(out, a)
		}
	}
	return out
}

func nodeAddr(n *corev1.Node, family service.Family) (netip.Addr, bool) {
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			ip, err := parseAddr(a.Address)
			if a.Type == kind && err == nil && service.FamilyOf(ip) == family {
				return ip, true
			}
		}
	}
	return netip.Addr{}, false
}

// converter gathers what was wrong with an object.
type converter struct{ problems []error }

func (c *converter) addrs(field string, values []string) (out []netip.Addr) {
	for _, v := range values {
		a, err := parseAddr(v)
		if err != nil {
			c.problems = append(c.problems, fmt.Errorf("%s: %w", field, err))
			continue
		}
		out = append(out, a)
	}
	return out
}

func (c *converter) servicePort(p corev1.ServicePort) (service.ServicePort, bool) {
	protocol, ok := c.protocol("spec.ports.protocol", p.Protocol)
	port, valid := c.port("spec.ports.port", p.Port)
	if !ok || !valid {
		return service.ServicePort{}, false
	}
	out := service.ServicePort{Name: p.Name, Protocol: protocol, Port: port}
	if p.NodePort != 0 { // one that is not valid is noted, and the port goes without
		out.NodePort, _ = c.port("spec.ports.nodePort", p.NodePort)
	}
	return out, true
}

func (c *converter) port(field string, n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		c.problems = append(c.problems, fmt.Errorf("%s: %d is not between 1 and 65535", field, n))
		return 0, false
	}
	return uint16(n), true
}

func (c *converter) protocol(field string, p corev1.Protocol) (service.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return service.TCP, true
	case corev1.ProtocolUDP:
		return service.UDP, true
	case corev1.ProtocolSCTP:
		return service.SCTP, true
	}
	c.problems = append(c.problems, fmt.Errorf("%s: %q is not TCP, UDP or SCTP", field, p))
	return 0, false
}

// endpoint converts an endpoint; only its first address counts, all are of the slice's type.
func (c *converter) endpoint(e discoveryv1.Endpoint, kind discoveryv1.AddressType) (service.Endpoint, bool) {
	if len(e.Addresses) == 0 {
		return service.Endpoint{}, false
	}
	a, err := parseAddr(e.Addresses[0])
	if err == nil && a.Is4() != (kind == discoveryv1.AddressTypeIPv4) {
		err = fmt.Errorf("%s is not of the slice's address type %s", a, kind)
	}
	if err != nil {
		c.problems = append(c.problems, fmt.Errorf("endpoints.addresses: %w", err))
		return service.Endpoint{}, false
	}
	return service.Endpoint{
		Addr:        a,
		Node:        deref(e.NodeName, ""),
		Ready:       deref(e.Conditions.Ready, true),
		Serving:     deref(e.Conditions.Serving, true),
		Terminating: deref(e.Conditions.Terminating, false),
	}, true
}

// parseAddr reads an address as Kubernetes does, which lets numbers of old objects begin with zeros.
func parseAddr(s string) (netip.Addr, error) {
	ip := netutils.ParseIPSloppy(s)
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return a, fmt.Errorf("%q is not an IP address", s)
	}
	a = a.Unmap()
	if a.IsUnspecified() || a.IsMulticast() {
		return a, fmt.Errorf("%s is not an address that traffic can be sent to", a)
	}
	return a, nil
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
