package apiwatch

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"varco.dev/internal/apiwatch/checked"
	"varco.dev/internal/service"
)

// Slice converts an EndpointSlice. ok is false for those that belong to no Service or hold names instead of addresses.
// Parts that are not valid are left out and named in problems.
func Slice(s *discoveryv1.EndpointSlice) (out *service.Slice, ok bool, problems []error) {
	owner := s.Labels[discoveryv1.LabelServiceName]
	if owner == "" || (s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6) {
		return nil, false, nil
	}
	c := converter{}
	namespace := checked.Shared(s.Namespace)
	out = &service.Slice{
		Name:      service.Name{Namespace: namespace, Name: s.Name},
		Service:   service.Name{Namespace: namespace, Name: owner},
		Ports:     c.slicePorts(s.Ports),
		Endpoints: c.endpoints(s.Endpoints, s.AddressType),
		Triggered: c.triggered(s.Annotations[corev1.EndpointsLastChangeTriggerTime]),
	}
	return out, true, c.Problems
}

func (c *converter) slicePorts(ports []discoveryv1.EndpointPort) []service.SlicePort {
	out := make([]service.SlicePort, 0, len(ports))
	for _, p := range ports {
		if p.Port == nil || *p.Port == 0 || p.Name == nil {
			continue // any port: not a proxy's business
		}
		protocol, ok := c.Protocol("ports.protocol", checked.Deref(p.Protocol, corev1.ProtocolTCP))
		if port, valid := c.Port("ports.port", *p.Port); ok && valid {
			out = append(out, service.SlicePort{Name: checked.Shared(*p.Name), Protocol: protocol, Port: port})
		}
	}
	return out
}

func (c *converter) endpoints(all []discoveryv1.Endpoint, kind discoveryv1.AddressType) []service.Endpoint {
	out := make([]service.Endpoint, 0, len(all))
	for _, e := range all {
		if endpoint, ok := c.Endpoint(e, kind); ok {
			if len(out) > 0 {
				checked.ShareHints(&endpoint, out[len(out)-1])
			}
			out = append(out, endpoint)
		}
	}
	// A table wants them sorted, and would sort a copy.
	slices.SortStableFunc(out, func(e, f service.Endpoint) int { return e.Addr.Compare(f.Addr) })
	return out
}

// triggered reads the time at which what the endpoints depend on had changed. Older writers left it out.
func (c *converter) triggered(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		c.Problem("annotation %s: %w", corev1.EndpointsLastChangeTriggerTime, err)
		return time.Time{}
	}
	return at
}
