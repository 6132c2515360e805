package locate

import (
	"context"
	"net/netip"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/service"
)

// DefaultKubeletPort is where the kubelet of a node is that does not say so in its status (ports.KubeletPort of Kubernetes).
const DefaultKubeletPort uint16 = 10250

// DefaultNodeAddressTypes returns the types of node addresses in the order of preference of kube-apiserver
// (--kubelet-preferred-address-types).
func DefaultNodeAddressTypes() []string {
	return []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}
}

// Config is what a Locator is told.
type Config struct {
	// AllowCIDRs are networks whose addresses may be endpoints of Services though no pod is known to have them: those of
	// Services without selector, outside of the pod network. Empty: as in kube-apiserver, there are none.
	AllowCIDRs []netip.Prefix
	// NodeAddressTypes are the types of node addresses to use, the best first. Empty: DefaultNodeAddressTypes.
	NodeAddressTypes []string
	// KubeletPort is the port of kubelets that tell none. 0: DefaultKubeletPort.
	KubeletPort uint16
}

// Locator finds destinations. It keeps those it found as long as nothing changes, in bounded memory.
type Locator struct {
	config  Config
	objects Objects
	found   *cache
	flights flights
}

// New returns a Locator.
func New(c Config, o Objects) *Locator {
	if len(c.NodeAddressTypes) == 0 {
		c.NodeAddressTypes = DefaultNodeAddressTypes()
	}
	if c.KubeletPort == 0 {
		c.KubeletPort = DefaultKubeletPort
	}
	return &Locator{config: c, objects: o, found: newCache(maxCached), flights: flights{of: map[flightKey]*flight{}}}
}

// Locate finds the destination of an address that was parsed without error. The result is shared and must not be changed.
// Errors are those of the API, with upstream's codes and words (503 if the object is there but nothing behind it), or that of
// the context.
func (l *Locator) Locate(ctx context.Context, a address.Address) (*Destination, error) {
	k := key{kind: a.Kind, namespace: a.Namespace, id: a.ID}
	switch a.Kind {
	case address.Pod:
		return l.locatePod(ctx, k, a)
	case address.Node:
		return l.locateNode(ctx, k, a)
	}
	return l.locateService(ctx, k, a)
}

// locateService computes a destination anew if its Service has another version than before. Errors are kept as well, so
// that a Service without endpoints costs no more than one with many. The version is read first: if something changes
// meanwhile, the result is kept for a version that is no longer asked for.
func (l *Locator) locateService(ctx context.Context, k key, a address.Address) (*Destination, error) {
	version := l.objects.Version(service.Name{Namespace: a.Namespace, Name: a.Name})
	if e := l.found.get(k); e != nil && e.version == version {
		return e.dest, e.err
	}
	return l.flights.do(ctx, flightKey{k, version}, func() (*Destination, error) {
		d, sure, err := l.service(context.WithoutCancel(ctx), a) // the result is for others too
		if sure && version != 0 {
			l.found.put(k, &entry{version: version, dest: d, err: err})
		}
		return d, err
	})
}

// locatePod computes a destination anew if what matters of the pod is not as before.
func (l *Locator) locatePod(ctx context.Context, k key, a address.Address) (*Destination, error) {
	p, err := l.objects.Pod(ctx, service.Name{Namespace: a.Namespace, Name: a.Name})
	if err != nil {
		return nil, err
	}
	if e := l.found.get(k); e != nil && samePod(e.pod, p) {
		return e.dest, e.err
	}
	d, err := podDestination(p, a)
	l.found.put(k, &entry{pod: p, dest: d, err: err})
	return d, err
}

// locateNode computes a destination anew if what matters of the node is not as before.
func (l *Locator) locateNode(ctx context.Context, k key, a address.Address) (*Destination, error) {
	n, err := l.objects.Node(ctx, a.Name)
	if err != nil {
		return nil, err
	}
	if e := l.found.get(k); e != nil && sameNode(e.node, n) {
		return e.dest, e.err
	}
	d, err := l.nodeDestination(n, a)
	l.found.put(k, &entry{node: n, dest: d, err: err})
	return d, err
}
