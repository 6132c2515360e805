package cluster

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/controlplane"
)

// ExternalNet are the addresses for externalIPs and load balancers: the router sends them to the first node. Nothing
// else in the lab has such an address.
var ExternalNet = nettest.Dual{
	V4: netip.MustParsePrefix("198.51.100.0/24"),
	V6: netip.MustParsePrefix("2001:db8:51::/64"),
}

// network is the network of a lab. Its namespaces live as long as the supervisor.
type network struct {
	world  *nettest.World
	byName map[string]*nettest.Namespace
	log    *slog.Logger
}

// newNetwork makes the machines of the layout, a router and a client, and a file for each of them in dir.
func newNetwork(l controlplane.Layout, dir string, log *slog.Logger) (*network, error) {
	world, err := nettest.NewWorld()
	if err != nil {
		return nil, err
	}
	n := &network{world: world, log: log,
		byName: map[string]*nettest.Namespace{"router": world.Router, "client": world.Client}}
	machines := map[int]controlplane.Host{}
	for i, h := range l.ControlPlanes {
		machines[controlplane.FirstControlPlane+i] = h
	}
	for i, h := range l.Nodes {
		machines[firstNode+i] = h
	}
	if l.Balancer != nil {
		machines[controlplane.BalancerNumber] = *l.Balancer
	}
	for number, h := range machines {
		if n.byName[h.Name], err = world.AddHost(h.Name, number); err != nil {
			return nil, fmt.Errorf("make machine %s: %w", h.Name, err)
		}
	}
	for name, ns := range n.byName {
		if err := ns.Bind(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return n, n.routeExternal(l)
}

func (n *network) routeExternal(l controlplane.Layout) error {
	if len(l.Nodes) == 0 {
		return nil
	}
	for i, prefix := range ExternalNet.Prefixes() {
		if err := n.world.Router.AddRoute(prefix, l.Nodes[0].Addrs[i], ""); err != nil {
			return fmt.Errorf("route external addresses to %s: %w", l.Nodes[0].Name, err)
		}
	}
	return nil
}

func (n *network) namespace(name string) (*nettest.Namespace, error) {
	ns, ok := n.byName[name]
	if !ok {
		return nil, fmt.Errorf("no machine %q in the lab", name)
	}
	return ns, nil
}
