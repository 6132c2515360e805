package kubeproxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"varco.dev/internal/kernel"
	"varco.dev/internal/service"
)

// NodePortAddresses tells at which addresses of the node NodePorts are served. The zero value is the node's primary
// addresses.
type NodePortAddresses struct{ prefixes []netip.Prefix }

// ParseNodePortAddresses reads upstream's words: "primary" alone, "all" alone, or networks such as 10.0.0.0/8. As
// upstream, a family of which no network is given is served at all its addresses.
func ParseNodePortAddresses(words []string) (NodePortAddresses, error) {
	var n NodePortAddresses
	for _, w := range words {
		switch w {
		case "primary", "all":
			if len(words) > 1 {
				return n, fmt.Errorf("%q stands alone, without other addresses", w)
			}
			if w == "all" {
				n.prefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
			}
		default:
			p, err := netip.ParsePrefix(w)
			if err != nil {
				return n, fmt.Errorf("%q is not a network such as 10.0.0.0/8, nor \"primary\" or \"all\"", w)
			}
			n.prefixes = append(n.prefixes, p.Masked())
		}
	}
	return n, nil
}

// choose returns the addresses that serve NodePorts, given those of the Node object and those of the machine.
func (n NodePortAddresses) choose(node, local []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, family := range []service.Family{service.IPv4, service.IPv6} {
		of := func(a netip.Addr) bool { return service.FamilyOf(a) == family }
		primary := slices.IndexFunc(node, of)
		if len(n.prefixes) == 0 && primary >= 0 {
			out = append(out, node[primary])
			continue
		}
		for _, a := range local {
			if of(a) && n.contains(a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func (n NodePortAddresses) contains(a netip.Addr) bool {
	named := false
	for _, p := range n.prefixes {
		if p.Addr().Is4() == a.Is4() {
			named = true
			if p.Contains(a) {
				return true
			}
		}
	}
	return !named
}

// addrsRetry is the pause before the machine's addresses are watched again after an error.
const addrsRetry = time.Second

// nodePorts follows the addresses of the node and of the machine, and tells the chosen ones when they change.
type nodePorts struct {
	choice NodePortAddresses
	log    *slog.Logger
	update func([]netip.Addr)

	mu    sync.Mutex // guards the fields below
	node  []netip.Addr
	local []netip.Addr
	told  []netip.Addr

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

// change tells the chosen addresses under the lock, so that two changes are told in their order.
func (n *nodePorts) change(set func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	set()
	chosen := n.choice.choose(n.node, n.local)
	if !slices.Equal(chosen, n.told) {
		n.told = chosen
		n.update(chosen)
		n.reportLocked()
	}
}

// settled says that the Node object is known, if there is one. What is chosen before is not applied, nor worth a word.
func (n *nodePorts) settled() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isSettled = true
	n.reportLocked()
}

func (n *nodePorts) reportLocked() {
	switch {
	case !n.isSettled:
	case len(n.node) == 0 && len(n.choice.prefixes) == 0:
		n.log.Warn("no Node object of this name has an address, so NodePorts are served at all local ones", "addresses", n.told)
	default:
		n.log.Info("serves NodePorts", "addresses", n.told)
	}
}
