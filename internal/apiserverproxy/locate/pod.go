package locate

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

// podDestination is ResourceLocation of pod/strategy.go, with these differences:
//
//   - The name of a port is looked up among the pod's own. Upstream dials it, which is an error for all but those that
//     the resolver knows as well-known.
//   - A pod that has terminated is not reached. Its address is free for the next pod, perhaps one of another namespace for
//     which the client has no permission.
//   - Without a scheme in the URL, a port that is named so is spoken to in HTTPS or H2C.
func podDestination(p *directory.Pod, a address.Address) (*Destination, error) {
	if p.Terminated {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("pod %q has terminated", p.Name.Name))
	}
	if len(p.Addrs) == 0 || !p.Addrs[0].Unmap().IsGlobalUnicast() {
		return nil, notAllowed()
	}
	port, ok := podPort(p, a)
	if !ok {
		return nil, noPort(a)
	}
	d := &Destination{
		Kind: address.Pod, Namespace: p.Name.Namespace, Name: p.Name.Name, Port: strconv.Itoa(int(port.Number)),
		Scheme:    scheme(a.Scheme, "", port.Name),
		Endpoints: []Endpoint{{Addr: netip.AddrPortFrom(p.Addrs[0].Unmap(), port.Number)}},
	}
	return d.finish(p.UID, p.Backend)
}

// podPort returns the port that an address means.
func podPort(p *directory.Pod, a address.Address) (directory.PodPort, bool) {
	if a.Port == "" {
		return defaultPodPort(p, a.Scheme), true
	}
	n, isNumber := number(a.Port)
	for _, port := range p.Ports {
		if port.Protocol == service.TCP && (isNumber && port.Number == n || !isNumber && port.Name == a.Port) {
			return port, true
		}
	}
	if !isNumber {
		n, isNumber = wellKnown(a.Port)
	}
	return directory.PodPort{Number: n}, isNumber
}

// defaultPodPort is the first port of the first container that has any. Upstream does not look at its protocol, so this
// does not either, nor at sidecars: those among the init containers are there for others than the pod's own clients.
func defaultPodPort(p *directory.Pod, scheme string) directory.PodPort {
	switch {
	case len(p.Ports) > 0 && !p.Ports[0].Sidecar:
		return p.Ports[0]
	case scheme == HTTPS:
		return directory.PodPort{Number: 443}
	}
	return directory.PodPort{Number: 80}
}

// samePod tells whether two states of a pod lead to the same destination.
func samePod(a, b *directory.Pod) bool {
	return a == b || a != nil && b != nil &&
		a.UID == b.UID && a.Terminated == b.Terminated && a.Backend == b.Backend &&
		slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Ports, b.Ports)
}
