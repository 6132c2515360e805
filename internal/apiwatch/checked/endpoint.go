package checked

import (
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	"varco.dev/internal/service"
)

// Endpoint converts an endpoint; only its first address counts, all are of the slice's type.
func (c *Fields) Endpoint(e discoveryv1.Endpoint, kind discoveryv1.AddressType) (out service.Endpoint, ok bool) {
	if len(e.Addresses) == 0 {
		return service.Endpoint{}, false
	}
	a, err := ParseAddr(e.Addresses[0])
	if err == nil && a.Is4() != (kind == discoveryv1.AddressTypeIPv4) {
		err = fmt.Errorf("%s is not of the slice's address type %s", a, kind)
	}
	if err != nil {
		c.Problem("endpoints.addresses: %w", err)
		return service.Endpoint{}, false
	}
	out = service.Endpoint{
		Addr:        a,
		Node:        Shared(Deref(e.NodeName, "")),
		Zone:        Shared(Deref(e.Zone, "")),
		Ready:       Deref(e.Conditions.Ready, true),
		Serving:     Deref(e.Conditions.Serving, true),
		Terminating: Deref(e.Conditions.Terminating, false),
	}
	if e.Hints != nil {
		for _, n := range e.Hints.ForNodes {
			out.ForNodes = append(out.ForNodes, Shared(n.Name))
		}
		for _, z := range e.Hints.ForZones {
			out.ForZones = append(out.ForZones, Shared(z.Name))
		}
	}
	return out, true
}

// ShareHints lets an endpoint use the memory of another one's hints where they are the same, as they often are.
func ShareHints(e *service.Endpoint, with service.Endpoint) {
	if slices.Equal(e.ForNodes, with.ForNodes) {
		e.ForNodes = with.ForNodes
	}
	if slices.Equal(e.ForZones, with.ForZones) {
		e.ForZones = with.ForZones
	}
}
