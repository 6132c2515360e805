package directory

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"varco.dev/internal/apiwatch/checked"
	"varco.dev/internal/service"
)

// ServiceOf converts a Service. Parts that are not valid are left out and named in problems; see BackendTLS for its
// annotations.
func ServiceOf(s *corev1.Service) (out *Service, problems []error) {
	c := checked.Fields{}
	out = &Service{
		Name:         service.Name{Namespace: checked.Shared(s.Namespace), Name: s.Name},
		UID:          string(s.UID),
		ExternalName: s.Spec.Type == corev1.ServiceTypeExternalName,
		Families:     families(&c, s),
		Affinity:     c.Affinity(s),
		Cookie:       cookie(&c, s.Annotations[AnnotationAffinity]),
		Backend:      backendTLS(&c, s.Annotations),
		Ports:        make([]ServicePort, 0, len(s.Spec.Ports)),
	}
	for _, p := range s.Spec.Ports {
		protocol, ok := c.Protocol("spec.ports.protocol", p.Protocol)
		if n, valid := c.Port("spec.ports.port", p.Port); ok && valid {
			out.Ports = append(out.Ports, ServicePort{
				Name: checked.Shared(p.Name), Number: n, Protocol: protocol, AppProtocol: checked.Shared(checked.Deref(p.AppProtocol, "")),
			})
		}
	}
	if isAPIServers(out.Name) {
		out.ClusterIPs = clusterIPs(s)
	}
	return out, c.Problems
}

// clusterIPs returns the addresses of a Service that has some. Objects of old API servers have one alone.
func clusterIPs(s *corev1.Service) (out []netip.Addr) {
	for _, text := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
		if a, err := checked.ParseAddr(text); err == nil && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// families returns the IP families of a Service, the primary one first: without a word about it, which objects of old API
// servers lack, that of its address; none for a Service of neither.
func families(c *checked.Fields, s *corev1.Service) []service.Family {
	out := make([]service.Family, 0, max(1, len(s.Spec.IPFamilies)))
	for _, f := range s.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			out = append(out, service.IPv4)
		case corev1.IPv6Protocol:
			out = append(out, service.IPv6)
		default:
			c.Problem("spec.ipFamilies: %q is not IPv4 or IPv6", f)
		}
	}
	if a, err := checked.ParseAddr(s.Spec.ClusterIP); len(out) == 0 && err == nil {
		out = append(out, service.FamilyOf(a))
	}
	return slices.Clip(out)
}

// SliceOf converts an EndpointSlice. ok is false for those that belong to no Service or hold names instead of addresses.
// Ports without a number, which stand for any, are left out. Parts that are not valid are left out and named in problems.
func SliceOf(s *discoveryv1.EndpointSlice) (out *Slice, ok bool, problems []error) {
	owner, family := s.Labels[discoveryv1.LabelServiceName], service.IPv4
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4:
	case discoveryv1.AddressTypeIPv6:
		family = service.IPv6
	default:
		return nil, false, nil
	}
	if owner == "" {
		return nil, false, nil
	}
	c := checked.Fields{}
	namespace := checked.Shared(s.Namespace)
	out = &Slice{
		Name:      service.Name{Namespace: namespace, Name: s.Name},
		Service:   service.Name{Namespace: namespace, Name: checked.Shared(owner)},
		Family:    family,
		Ports:     slicePorts(&c, s.Ports),
		Endpoints: endpoints(&c, s),
	}
	return out, true, c.Problems
}

func slicePorts(c *checked.Fields, ports []discoveryv1.EndpointPort) []SlicePort {
	out := make([]SlicePort, 0, len(ports))
	for _, p := range ports {
		if checked.Deref(p.Port, 0) == 0 {
			continue
		}
		protocol, ok := c.Protocol("ports.protocol", checked.Deref(p.Protocol, corev1.ProtocolTCP))
		if n, valid := c.Port("ports.port", *p.Port); ok && valid {
			out = append(out, SlicePort{
				Name: checked.Shared(checked.Deref(p.Name, "")), Number: n, Protocol: protocol,
				AppProtocol: checked.Shared(checked.Deref(p.AppProtocol, "")),
			})
		}
	}
	return out
}

func endpoints(c *checked.Fields, s *discoveryv1.EndpointSlice) []Endpoint {
	out := make([]Endpoint, 0, len(s.Endpoints))
	last := service.Endpoint{}
	for _, obj := range s.Endpoints {
		e, ok := c.Endpoint(obj, s.AddressType)
		if !ok {
			continue
		}
		checked.ShareHints(&e, last)
		last = e
		out = append(out, Endpoint{
			Addr: e.Addr, Ready: e.Ready, Serving: e.Serving, Terminating: e.Terminating, Node: e.Node, Zone: e.Zone,
			ForZones: e.ForZones, Pod: podOf(obj.TargetRef),
		})
	}
	return out
}

// podOf returns the pod that an endpoint says to be. Older writers left the kind out.
func podOf(ref *corev1.ObjectReference) service.Name {
	if ref == nil || ref.Name == "" || ref.Kind != "Pod" && ref.Kind != "" {
		return service.Name{}
	}
	return service.Name{Namespace: checked.Shared(ref.Namespace), Name: ref.Name}
}

// NodeOf converts a Node. Parts that are not valid are left out and named in problems.
func NodeOf(n *corev1.Node) (out *Node, problems []error) {
	c := checked.Fields{}
	out = &Node{Name: n.Name, Addrs: make([]NodeAddress, 0, len(n.Status.Addresses))}
	for _, a := range n.Status.Addresses {
		if a.Address != "" {
			out.Addrs = append(out.Addrs, NodeAddress{Type: checked.Shared(string(a.Type)), Address: a.Address})
		}
	}
	if port := n.Status.DaemonEndpoints.KubeletEndpoint.Port; port != 0 {
		out.KubeletPort, _ = c.Port("status.daemonEndpoints.kubeletEndpoint.Port", port)
	}
	return out, c.Problems
}
