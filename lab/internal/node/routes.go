package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"varco.dev/internal/nettest"
)

// routes keeps a route to each other node's pods. All nodes are neighbours, so a route is a gateway address.
type routes struct {
	ns   *nettest.Namespace
	self string
	log  *slog.Logger

	// mu guards the fields below.
	mu   sync.Mutex
	have map[string]map[netip.Prefix]netip.Addr // node name -> pod network -> gateway
}

// routesOf returns the routes that lead to a node's pods: pod network to the node's address of that family.
func routesOf(n *v1.Node) map[netip.Prefix]netip.Addr {
	want := map[netip.Prefix]netip.Addr{}
	for _, cidr := range n.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			continue
		}
		for _, a := range n.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err == nil && a.Type == v1.NodeInternalIP && ip.Is4() == p.Addr().Is4() {
				want[p.Masked()] = ip
				break
			}
		}
	}
	return want
}

// set makes the routes to a node those of want; nil removes them.
func (r *routes) set(node string, want map[netip.Prefix]netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.have[node]
	if have == nil {
		have = map[netip.Prefix]netip.Addr{}
		r.have[node] = have
	}
	for p := range have {
		if _, ok := want[p]; !ok {
			if err := r.ns.DelRoute(p); err != nil {
				return fmt.Errorf("remove route to pods of %s: %w", node, err)
			}
			delete(have, p)
		}
	}
	for p, gw := range want {
		if have[p] == gw {
			continue
		}
		if err := r.ns.AddRoute(p, gw, ""); err != nil {
			return fmt.Errorf("add route to pods of %s: %w", node, err)
		}
		have[p] = gw
	}
	return nil
}

// OnAdd, OnUpdate and OnDelete make routes a handler of Node events.
func (r *routes) OnAdd(obj any, _ bool) { r.sync(obj, false) }
func (r *routes) OnUpdate(_, obj any)   { r.sync(obj, false) }
func (r *routes) OnDelete(obj any)      { r.sync(obj, true) }

func (r *routes) sync(obj any, gone bool) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	n, ok := obj.(*v1.Node)
	if !ok || n.Name == r.self {
		return
	}
	var want map[netip.Prefix]netip.Addr
	if !gone {
		want = routesOf(n)
	}
	if err := r.set(n.Name, want); err != nil {
		// The informer's resync tries again.
		r.log.Warn("routes not up to date", "err", err)
	}
}

// routesResync is how long a failed route waits for the next try.
const routesResync = 10 * time.Second

// runRoutes watches all Nodes, by the right of Grants.
func (a *Agent) runRoutes(ctx context.Context) error {
	r := &routes{ns: a.cfg.Namespace, self: a.cfg.Name, log: a.cfg.Log, have: map[string]map[netip.Prefix]netip.Addr{}}
	f := informers.NewSharedInformerFactory(a.cfg.Client, routesResync)
	if _, err := f.Core().V1().Nodes().Informer().AddEventHandler(r); err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	f.Start(ctx.Done())
	<-ctx.Done()
	f.Shutdown()
	return nil
}
