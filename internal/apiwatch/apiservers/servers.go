package apiservers

import (
	"maps"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	"varco.dev/internal/apiwatch/checked"
	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// portName is the name of the port of the API servers (k8s.io/kubernetes/pkg/controlplane).
const portName = "https"

// slice is what an EndpointSlice says.
type slice struct {
	ready, unready []netip.AddrPort
}

// servers are what all slices say. The reflector's goroutine alone uses it.
type servers struct {
	slices  map[service.Name]slice
	changed func([]netip.AddrPort)
	told    []netip.AddrPort
}

func (s *servers) set(name service.Name, v slice) {
	s.slices[name] = v
	s.tell()
}

func (s *servers) del(name service.Name) {
	delete(s.slices, name)
	s.tell()
}

func (s *servers) replace(all []feed.Item[slice]) {
	clear(s.slices)
	for _, i := range all {
		s.slices[i.Name] = i.Value
	}
	s.told = s.all()
	s.changed(slices.Clone(s.told))
}

func (s *servers) tell() {
	now := s.all()
	if slices.Equal(now, s.told) {
		return
	}
	s.told = now
	s.changed(slices.Clone(now))
}

// all returns the ready ones, or if there is none those that are not, sorted.
func (s *servers) all() []netip.AddrPort {
	var ready, unready []netip.AddrPort
	for v := range maps.Values(s.slices) {
		ready, unready = append(ready, v.ready...), append(unready, v.unready...)
	}
	if len(ready) == 0 {
		ready = unready
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

// convert reads a slice. ok is false for those that are not of the API servers.
func convert(s *discoveryv1.EndpointSlice) (out slice, ok bool, problems []error) {
	if !ours(s) {
		return slice{}, false, nil
	}
	if len(s.Endpoints) == 0 {
		return slice{}, true, nil // it has no ports then either
	}
	c := checked.Fields{}
	port, ok := portOf(&c, s.Ports)
	if !ok {
		return slice{}, true, c.Problems
	}
	for _, e := range s.Endpoints {
		endpoint, ok := c.Endpoint(e, s.AddressType)
		if !ok {
			continue
		}
		addr := netip.AddrPortFrom(endpoint.Addr, port)
		if endpoint.Ready {
			out.ready = append(out.ready, addr)
		} else {
			out.unready = append(out.unready, addr)
		}
	}
	return out, true, c.Problems
}

// portOf returns the port that is named https, or the only one that there is.
func portOf(c *checked.Fields, ports []discoveryv1.EndpointPort) (port uint16, ok bool) {
	named := slices.IndexFunc(ports, func(p discoveryv1.EndpointPort) bool { return checked.Deref(p.Name, "") == portName })
	if named < 0 && len(ports) == 1 {
		named = 0
	}
	if named < 0 {
		c.Problem("ports: none of %d is named %s", len(ports), portName)
		return 0, false
	}
	p := ports[named]
	if protocol, ok := c.Protocol("ports.protocol", checked.Deref(p.Protocol, "")); !ok || protocol != service.TCP {
		c.Problem("ports: %s is not a TCP port", portName)
		return 0, false
	}
	return c.Port("ports.port", checked.Deref(p.Port, 0))
}
