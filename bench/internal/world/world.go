package world

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"varco.dev/internal/nettest"
)

// Addresses of a world. All but the node's and the Services' are in ClusterCIDR.
var (
	ClusterCIDR = netip.MustParsePrefix("10.200.0.0/14")
	ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	// ClientNet are addresses of the client pod, all of which it may send from.
	ClientNet = netip.MustParsePrefix("10.202.0.0/16")
	// podNet has the pods' own addresses, by which the node reaches the networks above and below.
	podNet = nettest.Dual{V4: netip.MustParsePrefix("10.203.0.0/24"), V6: netip.MustParsePrefix("fd00:203::/64")}
	// NodeAddr is the address of the node.
	NodeAddr = netip.MustParseAddr("10.240.0.11")
	// APIServer is where the node reaches the API server.
	APIServer = netip.MustParseAddrPort("127.0.0.1:6443")
)

// Host numbers in podNet.
const (
	gatewayHost = 1
	firstPod    = 11
)

// EndpointPort is where every endpoint serves.
const EndpointPort = 8080

// closedTimeout is how many seconds conntrack remembers connections that were reset. By default it would remember those of
// ten seconds of a measure: the next one would then depend on how many the one before has made.
const closedTimeout = "net.netfilter.nf_conntrack_tcp_timeout_close"

// Side is one of the two pods that hold all endpoints: an endpoint moves from one to the other by a change of address.
type Side int

// The sides. Their pods answer connections with their names.
const (
	A Side = iota
	B
)

// Name is the byte by which the side's pod names itself.
func (s Side) Name() byte { return byte('A' + s) }

// Other is the other side.
func (s Side) Other() Side { return 1 - s }

// Net are the addresses of the side's pod.
func (s Side) Net() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(200 + s), 0, 0}), 16)
}

// World is one node with its pods:
//
//	client ─┐        ┌─ A  10.200.0.0/16
//	        ├─ node ─┼─ B  10.201.0.0/16
//	   API ─┘        └─ void: what no proxy takes care of; it resets connections at once
type World struct {
	// Node is where the proxy runs, Client where connections start, and Void where those to Services end that no proxy
	// takes care of.
	Node, Client, Void *nettest.Namespace

	pods     []*nettest.Namespace
	backends []*backend
	forward  *forwarder
}

// New makes a world whose APIServer address leads to api, an address of this machine. Close ends it. It needs root.
func New(ctx context.Context, api string) (w *World, err error) {
	w = &World{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if err = w.makeNode(); err != nil {
		return w, err
	}
	if err = w.makePods(); err != nil {
		return w, err
	}
	l, err := w.Node.Listen("tcp4", APIServer.String())
	if err != nil {
		return w, fmt.Errorf("listen for the proxy: %w", err)
	}
	w.forward = newForwarder(l, api)
	go w.forward.run(ctx)
	return w, nil
}

// Close ends all that serves and lets go of the namespaces, which ends them with what is in them.
func (w *World) Close() error {
	var errs []error
	if w.forward != nil {
		errs = append(errs, w.forward.close())
	}
	for _, b := range w.backends {
		b.close()
	}
	for _, ns := range append(w.pods, w.Node) {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}

func (w *World) makeNode() (err error) {
	if w.Node, err = nettest.NewNamespace("node"); err != nil {
		return err
	}
	if err := w.Node.Forward(); err != nil {
		return err
	}
	if err := w.Node.Sysctl(closedTimeout, "1"); err != nil {
		return fmt.Errorf("forget closed connections soon (is nf_conntrack loaded?): %w", err)
	}
	return w.Node.AddAddr("lo", netip.PrefixFrom(NodeAddr, 32))
}

func (w *World) makePods() error {
	pods := []struct {
		name   string
		routed netip.Prefix
		serves byte
		pod    **nettest.Namespace
	}{
		{"client", ClientNet, 0, &w.Client},
		{"side-a", A.Net(), A.Name(), nil},
		{"side-b", B.Net(), B.Name(), nil},
		{"void", ServiceCIDR, 0, &w.Void},
	}
	for i, p := range pods {
		pod, err := w.addPod(p.name, i, p.routed)
		if err != nil {
			return fmt.Errorf("make pod %s: %w", p.name, err)
		}
		if p.pod != nil {
			*p.pod = pod
		}
		if p.serves == 0 {
			continue
		}
		b, err := startBackend(pod, p.serves)
		if err != nil {
			return fmt.Errorf("serve in pod %s: %w", p.name, err)
		}
		w.backends = append(w.backends, b)
	}
	return nil
}

// addPod joins a pod to the node and gives it all addresses of a network. The node sends them by way of the pod's own
// address: each would otherwise be a neighbour of its own, and the kernel knows 1024 of these.
func (w *World) addPod(name string, number int, routed netip.Prefix) (*nettest.Namespace, error) {
	pod, err := nettest.NewNamespace(name)
	if err != nil {
		return nil, err
	}
	w.pods = append(w.pods, pod)
	addrs, gateway := podNet.Host(number+firstPod), podNet.Host(gatewayHost)
	if err := nettest.AddPod(w.Node, pod, name, addrs, gateway); err != nil {
		return nil, err
	}
	if err := w.Node.AddRoute(routed, addrs.V4.Addr(), name); err != nil {
		return nil, err
	}
	return pod, pod.AddLocalRoute(routed)
}
