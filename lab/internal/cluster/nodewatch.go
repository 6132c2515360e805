package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/controlplane"
)

// nodeWatch follows the Node objects: it gives the control planes routes to the pods of each node, so that API servers
// reach pods, and knows which nodes are ready.
type nodeWatch struct {
	hosts   map[string]controlplane.Host
	planes  []*nettest.Namespace
	log     *slog.Logger
	factory informers.SharedInformerFactory
	changed chan struct{} // holds a token after each change

	// mu guards notReady: why a node of the lab is not ready.
	mu       sync.Mutex
	notReady map[string]string
}

// routesResync is how long a route that could not be made waits for the next try.
const routesResync = 10 * time.Second

func newNodeWatch(client kubernetes.Interface, l controlplane.Layout, n *network) (*nodeWatch, error) {
	w := &nodeWatch{
		hosts:    make(map[string]controlplane.Host),
		log:      n.log,
		factory:  informers.NewSharedInformerFactory(client, routesResync),
		changed:  make(chan struct{}, 1),
		notReady: make(map[string]string),
	}
	for _, h := range l.ControlPlanes {
		ns, err := n.namespace(h.Name)
		if err != nil {
			return nil, err
		}
		w.planes = append(w.planes, ns)
	}
	for _, h := range l.Nodes {
		w.hosts[h.Name], w.notReady[h.Name] = h, "no Node object"
	}
	return w, nil
}

// Run watches until ctx ends.
func (w *nodeWatch) Run(ctx context.Context) error {
	_, err := w.factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { w.set(obj) },
		UpdateFunc: func(_, obj any) { w.set(obj) },
		DeleteFunc: func(obj any) { w.remove(obj) },
	})
	if err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	w.factory.Start(ctx.Done())
	<-ctx.Done()
	w.factory.Shutdown()
	return nil
}

func (w *nodeWatch) set(obj any) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	w.route(node, func(plane *nettest.Namespace, pods netip.Prefix, via netip.Addr) error {
		return plane.AddRoute(pods, via, "")
	})
	w.note(node.Name, readiness(node))
}

func (w *nodeWatch) remove(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	w.route(node, func(plane *nettest.Namespace, pods netip.Prefix, _ netip.Addr) error {
		return plane.DelRoute(pods)
	})
	w.note(node.Name, "no Node object")
}

// route calls change for each pod network of the node and each control plane. Nodes that the lab did not make have no
// address there.
func (w *nodeWatch) route(node *corev1.Node, change func(*nettest.Namespace, netip.Prefix, netip.Addr) error) {
	host, ok := w.hosts[node.Name]
	if !ok {
		return
	}
	for _, cidr := range node.Spec.PodCIDRs {
		pods, err := netip.ParsePrefix(cidr)
		if err != nil {
			w.log.Error("pod network of a node", "node", node.Name, "err", err)
			continue
		}
		via := host.Addrs[slices.IndexFunc(host.Addrs, func(a netip.Addr) bool { return a.Is4() == pods.Addr().Is4() })]
		for _, plane := range w.planes {
			if err := change(plane, pods, via); err != nil {
				// The informer's resync tries again.
				w.log.Error("route to pods", "node", node.Name, "err", err)
			}
		}
	}
}

// note keeps why a node is not ready; an empty reason means that it is.
func (w *nodeWatch) note(name, reason string) {
	w.mu.Lock()
	if _, ours := w.hosts[name]; ours {
		w.notReady[name] = reason
	}
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// readiness returns why a node is not ready, or nothing if it is.
func readiness(node *corev1.Node) string {
	for _, c := range node.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue && len(node.Spec.PodCIDRs) > 0 {
			return ""
		}
		return strings.TrimSpace(c.Reason + " " + c.Message)
	}
	return "not ready yet"
}

// waiting returns the nodes that are not ready, and why.
func (w *nodeWatch) waiting() (names, reasons []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, reason := range w.notReady {
		if reason != "" {
			names, reasons = append(names, name), append(reasons, name+": "+reason)
		}
	}
	slices.Sort(reasons)
	return names, reasons
}

// waitReady returns when all nodes are ready, an agent has ended, or ctx has.
func (w *nodeWatch) waitReady(ctx context.Context, agents []*process) error {
	tick := time.NewTicker(checkPeriod)
	defer tick.Stop()
	for {
		names, reasons := w.waiting()
		if len(names) == 0 {
			return nil
		}
		for _, p := range agents {
			select {
			case <-p.ending():
				return p.failure("ended")
			default:
			}
			if ctx.Err() != nil && slices.Contains(names, p.name) {
				return p.failure(fmt.Sprintf("is %s (%s)", context.Cause(ctx), strings.Join(reasons, "; ")))
			}
		}
		select {
		case <-ctx.Done():
		case <-w.changed:
		case <-tick.C:
		}
	}
}
