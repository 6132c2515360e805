package kubeproxy

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"varco.dev/internal/kernel"
	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/service"
)

// chooseAddrs returns the addresses that serve NodePorts, given those of the Node object and those of the machine. As
// upstream, a family for which nothing is named is served at all its addresses, which the unspecified address stands for.
// Loopback addresses are served if they are named as such; that they are part of all addresses is not enough.
func chooseAddrs(n config.NodePorts, node, local []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, family := range []service.Family{service.IPv4, service.IPv6} {
		named := namedAddrs(n, family, node, local)
		if named == nil {
			named = []netip.Addr{everywhere(family)}
		}
		out = append(out, named...)
	}
	return out
}

// namedAddrs returns the addresses of a family that are named; nil: none is, or all are.
func namedAddrs(n config.NodePorts, family service.Family, node, local []netip.Addr) []netip.Addr {
	foreign := func(a netip.Addr) bool { return service.FamilyOf(a) != family }
	named := []netip.Addr{}
	isNamed := false
	if n.Primary {
		named = slices.DeleteFunc(slices.Clone(node), foreign)
		isNamed = len(named) > 0
	}
	for _, p := range n.Networks {
		if foreign(p.Addr()) {
			continue
		}
		if p.Bits() == 0 {
			return allAddrs(n, family)
		}
		isNamed = true
		for _, a := range local {
			if p.Contains(a) {
				named = append(named, a)
			}
		}
	}
	if !isNamed {
		return nil
	}
	named = append(named, loopback(n, family)...)
	slices.SortFunc(named, netip.Addr.Compare)
	return slices.Compact(named)
}

// allAddrs returns the unspecified address, and the loopback one if it is named besides.
func allAddrs(n config.NodePorts, family service.Family) []netip.Addr {
	return append([]netip.Addr{everywhere(family)}, loopback(n, family)...)
}

func loopback(n config.NodePorts, family service.Family) []netip.Addr {
	switch is4 := family == service.IPv4; {
	case !n.Localhost(is4):
		return nil
	case is4:
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return []netip.Addr{netip.IPv6Loopback()}
}

// everywhere is the address that stands for all of a family.
func everywhere(f service.Family) netip.Addr {
	if f == service.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// addrsRetry is the pause before the machine's addresses are watched again after an error.
const addrsRetry = time.Second

// nodePorts follows the addresses of the node and of the machine, and tells the chosen ones when they change.
type nodePorts struct {
	choice config.NodePorts
	log    *slog.Logger
	update func([]netip.Addr)

	// order is held while a change is told, so that two are told in their order. It is taken before mu and before the locks
	// of those who are told, who may ask isLocal and serves while they hold theirs.
	order sync.Mutex

	mu        sync.Mutex // guards the fields below
	node      []netip.Addr
	local     []netip.Addr
	told      []netip.Addr
	isSettled bool
}

// readLocal reads the machine's addresses once.
func (n *nodePorts) readLocal() error {
	addrs, err := kernel.LocalAddrs()
	if err == nil {
		n.setLocal(addrs)
	}
	return err
}

// run follows the machine's addresses until the context ends.
func (n *nodePorts) run(ctx context.Context) error {
	for {
		err := kernel.WatchAddrs(ctx, n.setLocal)
		if ctx.Err() != nil {
			return nil
		}
		n.log.Warn("lost sight of this machine's addresses, looking again", "after", addrsRetry, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(addrsRetry):
		}
	}
}

func (n *nodePorts) setLocal(addrs []netip.Addr) { n.change(func() { n.local = addrs }) }

func (n *nodePorts) setNode(addrs []netip.Addr) { n.change(func() { n.node = addrs }) }

// isLocal tells whether an address is this machine's.
func (n *nodePorts) isLocal(a netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.local, a)
}

// serves tells whether NodePorts are served at an address.
func (n *nodePorts) serves(a netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.told, a) ||
		!a.IsLoopback() && slices.Contains(n.told, everywhere(service.FamilyOf(a))) && slices.Contains(n.local, a)
}

// change tells the chosen addresses if they are others now.
func (n *nodePorts) change(set func()) {
	n.order.Lock()
	defer n.order.Unlock()
	if chosen, isNew := n.choose(set); isNew {
		n.update(chosen)
		n.report()
	}
}

func (n *nodePorts) choose(set func()) (chosen []netip.Addr, isNew bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	set()
	chosen = chooseAddrs(n.choice, n.node, n.local)
	isNew = !slices.Equal(chosen, n.told)
	n.told = chosen
	return chosen, isNew
}

// settled says that the Node object is known, if there is one. What is chosen before is not applied, nor worth a word.
func (n *nodePorts) settled() {
	n.mu.Lock()
	n.isSettled = true
	n.mu.Unlock()
	n.report()
}

func (n *nodePorts) report() {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.isSettled:
	case len(n.node) == 0 && n.choice.Primary:
		n.log.Warn("no Node object of this name has an address, so NodePorts are served at all local ones")
	default:
		n.log.Info("serves NodePorts", "addresses", n.told)
	}
}
