package apiwatch

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"varco.dev/internal/apiwatch/checked"
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
		Name:            service.Name{Namespace: checked.Shared(s.Namespace), Name: s.Name},
		Created:         s.CreationTimestamp.Time,
		ClusterIPs:      c.clusterIPs(s),
		ExternalIPs:     c.Addrs("spec.externalIPs", s.Spec.ExternalIPs),
		LoadBalancerIPs: c.Addrs("status.loadBalancer.ingress", ingressIPs(s)),
		Internal:        c.policy("spec.internalTrafficPolicy", string(checked.Deref(s.Spec.InternalTrafficPolicy, ""))),
		Affinity:        c.Affinity(s),
		Sources:         c.Prefixes("spec.loadBalancerSourceRanges", s.Spec.LoadBalancerSourceRanges),
		Balance:         c.balance(s.Annotations[AnnotationBalance]),
		Weights:         c.weights(s.Annotations[AnnotationWeights]),
	}
	if isExternal(s) {
		out.External = c.policy("spec.externalTrafficPolicy", string(s.Spec.ExternalTrafficPolicy))
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && out.External == service.PolicyLocal {
		out.HealthCheckPort, _ = c.Port("spec.healthCheckNodePort", s.Spec.HealthCheckNodePort)
	}
	out.Ports = c.servicePorts(s.Spec.Ports)
	return out, true, c.Problems
}

// clusterIPs returns at most one address per family. spec.ipFamilies tells which one is of which family; only where it is
// missing, in objects of old API servers, spec.clusterIP counts alone.
func (c *converter) clusterIPs(s *corev1.Service) []netip.Addr {
	if len(s.Spec.IPFamilies) == 0 {
		return c.Addrs("spec.clusterIP", []string{s.Spec.ClusterIP})
	}
	n := min(len(s.Spec.IPFamilies), len(s.Spec.ClusterIPs))
	out := make([]netip.Addr, 0, n)
	for i, ip := range s.Spec.ClusterIPs[:n] {
		family := s.Spec.IPFamilies[i]
		a, err := checked.ParseAddr(ip)
		switch {
		case err != nil:
			c.Problem("spec.clusterIPs: %w", err)
		case a.Is4() != (family == corev1.IPv4Protocol):
			c.Problem("spec.clusterIPs: %s is not of the family %s that spec.ipFamilies says", a, family)
		case !slices.Contains(s.Spec.IPFamilies[:i], family): // the first of a family counts
			out = append(out, a)
		}
	}
	return out
}

// isExternal tells whether clients outside the cluster are meant to reach a Service. The external policy of others means
// nothing.
func isExternal(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP, "":
		return len(s.Spec.ExternalIPs) > 0
	}
	return false
}

// ingressIPs returns the load balancer's addresses whose traffic comes to the nodes as it is. With ipMode Proxy the load
// balancer wants to see the traffic itself (KEP-1860).
func ingressIPs(s *corev1.Service) (out []string) {
	for _, i := range s.Status.LoadBalancer.Ingress {
		if i.IPMode == nil || *i.IPMode == corev1.LoadBalancerIPModeVIP {
			out = append(out, i.IP)
		}
	}
	return out
}

func (c *converter) policy(field, word string) service.Policy {
	switch word {
	case "", service.PolicyCluster.String():
		return service.PolicyCluster
	case service.PolicyLocal.String():
		return service.PolicyLocal
	}
	c.Problem("%s: %q is not Cluster or Local", field, word)
	return service.PolicyCluster
}

func (c *converter) servicePorts(ports []corev1.ServicePort) []service.ServicePort {
	out := make([]service.ServicePort, 0, len(ports))
	for _, p := range ports {
		if port, ok := c.servicePort(p); ok {
			out = append(out, port)
		}
	}
	return out
}

func (c *converter) servicePort(p corev1.ServicePort) (service.ServicePort, bool) {
	protocol, ok := c.Protocol("spec.ports.protocol", p.Protocol)
	port, valid := c.Port("spec.ports.port", p.Port)
	if !ok || !valid {
		return service.ServicePort{}, false
	}
	out := service.ServicePort{Name: checked.Shared(p.Name), Protocol: protocol, Port: port}
	if p.NodePort != 0 { // one that is not valid is noted, and the port goes without
		out.NodePort, _ = c.Port("spec.ports.nodePort", p.NodePort)
	}
	return out, true
}
