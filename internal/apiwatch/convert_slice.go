package apiwatch

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

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
	namespace := shared(s.Namespace)
	out = &service.Slice{
		Name:      service.Name{Namespace: namespace, Name: s.Name},
		Service:   service.Name{Namespace: namespace, Name: owner},
		Ports:     c.slicePorts(s.Ports),
		Endpoints: c.endpoints(s.Endpoints, s.AddressType),
		Triggered: c.triggered(s.Annotations[corev1.EndpointsLastChangeTriggerTime]),
	}
	return out, true, c.problems
}

func (c *converter) slicePorts(ports []discoveryv1.EndpointPort) []service.SlicePort {
	out := make([]service.SlicePort, 0, len(ports))
	for _, p := range ports {
		if p.Port == nil || *p.Port == 0 || p.Name == nil {
			continue // any port: not a proxy's business
		}
		protocol, ok := c.protocol("ports.protocol", deref(p.Protocol, corev1.ProtocolTCP))
		if port, valid := c.port("ports.port", *p.Port); ok && valid {
			out = append(out, service.SlicePort{Name: shared(*p.Name), Protocol: protocol, Port: port})
		}
	}
	return out
}

func (c *converter) endpoints(all []discoveryv1.Endpoint, kind discoveryv1.AddressType) []service.Endpoint {
	out := make([]service.Endpoint, 0, len(all))
	for _, e := range all {
		if endpoint, ok := c.endpoint(e, kind); ok {
			if len(out) > 0 {
				shareHints(&endpoint, out[len(out)-1])
			}
			out = append(out, endpoint)
		}
	}
	// A table wants them sorted, and would sort a copy.
	slices.SortStableFunc(out, func(e, f service.Endpoint) int { return e.Addr.Compare(f.Addr) })
	return out
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
		c.problem("endpoints.addresses: %w", err)
		return service.Endpoint{}, false
	}
	out := service.Endpoint{
		Addr:        a,
		Node:        shared(deref(e.NodeName, "")),
		Zone:        shared(deref(e.Zone, "")),
		Ready:       deref(e.Conditions.Ready, true),
		Serving:     deref(e.Conditions.Serving, true),
		Terminating: deref(e.Conditions.Terminating, false),
	}
	if e.Hints != nil {
		for _, n := range e.Hints.ForNodes {
			out.ForNodes = append(out.ForNodes, shared(n.Name))
		}
		for _, z := range e.Hints.ForZones {
			out.ForZones = append(out.ForZones, shared(z.Name))
		}
	}
	return out, true
}

// shareHints lets an endpoint use the memory of another one's hints where they are the same, as they often are.
func shareHints(e *service.Endpoint, with service.Endpoint) {
	if slices.Equal(e.ForNodes, with.ForNodes) {
		e.ForNodes = with.ForNodes
	}
	if slices.Equal(e.ForZones, with.ForZones) {
		e.ForZones = with.ForZones
	}
}

// triggered reads the time at which what the endpoints depend on had changed. Older writers left it out.
func (c *converter) triggered(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		c.problem("annotation %s: %w", corev1.EndpointsLastChangeTriggerTime, err)
		return time.Time{}
	}
	return at
}
