package locate

import (
	"context"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

// maxLookup is for how long the pods behind a Service are looked up. What is not known by then is left out, and looked up
// again for the next request.
const maxLookup = 5 * time.Second

// behind is what is found behind a port of a Service.
type behind struct {
	endpoints   []Endpoint
	appProtocol string // of a slice
}

// endpoints returns all endpoints behind a port of a Service that are the best there are: ready ones of the Service's
// primary IP family, else ready ones of the other, else those that terminate but still serve (as kube-proxy does:
// KEP-1669), again of the primary family first. sure is false if a pod could not be looked up.
//
// Upstream (RandomEndpoint) takes the first ready endpoint it finds in a random slice, and none that terminates. It takes
// only addresses that a pod of the Service's namespace has: who may write EndpointSlices must not reach any address there
// is. This also takes those that Config.AllowCIDRs allows.
func (l *Locator) endpoints(ctx context.Context, s *directory.Service, port string) (b behind, sure bool) {
	ctx, cancel := context.WithTimeout(ctx, maxLookup)
	defer cancel()
	of, sure := l.objects.Slices(s.Name), true
	for best := readyPrimary; best <= drainingOther; best++ {
		for _, slice := range of {
			if p, ok := slicePort(slice, port); ok {
				known := l.add(ctx, &b, s, slice, p, best)
				sure = sure && known
			}
		}
		if len(b.endpoints) > 0 {
			break
		}
	}
	b.endpoints = distinct(b.endpoints)
	return b, sure
}

// rank orders endpoints: only those of the best rank are used.
type rank int

const (
	readyPrimary rank = iota
	readyOther
	drainingPrimary
	drainingOther
	unusable
)

func rankOf(s *directory.Service, slice *directory.Slice, e *directory.Endpoint) rank {
	primary := len(s.Families) == 0 || slice.Family == s.Families[0]
	switch draining := e.Serving && e.Terminating; {
	case e.Ready && primary:
		return readyPrimary
	case e.Ready:
		return readyOther
	case draining && primary:
		return drainingPrimary
	case draining:
		return drainingOther
	}
	return unusable
}

// add adds the endpoints of a slice that have a rank and are allowed.
func (l *Locator) add(ctx context.Context, b *behind, s *directory.Service, slice *directory.Slice,
	p directory.SlicePort, want rank) (sure bool) {
	sure = true
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		if rankOf(s, slice, e) != want {
			continue
		}
		ok, known := l.allowed(ctx, s.Name.Namespace, e)
		sure = sure && known
		if ok {
			b.appProtocol = p.AppProtocol
			b.endpoints = append(b.endpoints, Endpoint{Addr: netip.AddrPortFrom(e.Addr, p.Number),
				Node: e.Node, Zone: e.Zone, ForZones: e.ForZones, Draining: want >= drainingPrimary})
		}
	}
	return sure
}

// allowed tells whether an endpoint may be reached: it says to be a pod of the Service's own namespace, and this pod has
// the address now; or all may reach the address. known is false if that could not be found out.
func (l *Locator) allowed(ctx context.Context, namespace string, e *directory.Endpoint) (ok, known bool) {
	inside := func(p netip.Prefix) bool { return p.Contains(e.Addr) }
	switch {
	case slices.ContainsFunc(l.config.AllowCIDRs, inside):
		return true, true
	case e.Pod.Name == "" || e.Pod.Namespace != namespace:
		return false, true
	}
	p, err := l.objects.Pod(ctx, e.Pod)
	if err != nil {
		return false, apierrors.IsNotFound(err)
	}
	return !p.Terminated && slices.Contains(p.Addrs, e.Addr), true
}

// slicePort returns the TCP port of a slice that has a name. A slice may also have a UDP port of that name; one without a
// number is for no Service.
func slicePort(s *directory.Slice, name string) (directory.SlicePort, bool) {
	i := slices.IndexFunc(s.Ports, func(p directory.SlicePort) bool {
		return p.Name == name && p.Protocol == service.TCP && p.Number != 0
	})
	if i < 0 {
		return directory.SlicePort{}, false
	}
	return s.Ports[i], true
}

// distinct sorts endpoints by address and drops those listed twice, which a slice being split up causes for a while: they
// would get twice their share.
func distinct(es []Endpoint) []Endpoint {
	slices.SortStableFunc(es, func(a, b Endpoint) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(es, func(a, b Endpoint) bool { return a.Addr == b.Addr })
}
