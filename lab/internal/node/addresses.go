package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"varco.dev/internal/nettest"
)

// GatewayHost is the host number of the node in its pod networks; pods have the numbers after it.
const GatewayHost = 1

// errNoAddress says that all host numbers of the node's pod network are taken.
var errNoAddress = errors.New("no free address in the node's pod network")

// addresses gives pods host numbers of the node's pod networks. A number that was freed is given again as late as
// possible, so that packets to a pod that is gone do not reach another.
type addresses struct {
	nets nettest.Dual
	last int // highest host number

	// mu guards the fields below.
	mu   sync.Mutex
	next int   // lowest number never given
	free []int // freed numbers, oldest first
}

// newAddresses takes the podCIDRs of a node, one of each family in any order.
func newAddresses(podCIDRs []string) (*addresses, error) {
	a := &addresses{next: GatewayHost + 1}
	for _, s := range podCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("read podCIDR: %w", err)
		}
		if p.Addr().Is4() {
			a.nets.V4 = p.Masked()
		} else {
			a.nets.V6 = p.Masked()
		}
	}
	if !a.nets.V4.IsValid() || !a.nets.V6.IsValid() {
		return nil, fmt.Errorf("podCIDRs %v: want one of each family", podCIDRs)
	}
	bits := min(32-a.nets.V4.Bits(), 128-a.nets.V6.Bits(), 15)
	a.last = 1<<bits - 2 // the highest IPv4 address is for broadcast
	return a, nil
}

// avoid gives numbers of addresses that were in use under an earlier agent as late as those that were freed.
func (a *addresses) avoid(used map[netip.Addr]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var before, unused []int
	for n := GatewayHost + 1; n <= a.last; n++ {
		if slices.ContainsFunc(a.nets.Host(n).Addrs(), func(ip netip.Addr) bool { return used[ip] }) {
			before = append(before, n)
			a.next = n + 1
		}
	}
	for n := GatewayHost + 1; n < a.next; n++ {
		if !slices.Contains(before, n) {
			unused = append(unused, n)
		}
	}
	a.free = append(unused, before...)
}

// gateway returns the node's own addresses in the pod networks.
func (a *addresses) gateway() nettest.Dual { return a.nets.Host(GatewayHost) }

// take returns a free host number; errNoAddress if there is none.
func (a *addresses) take() (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next <= a.last {
		a.next++
		return a.next - 1, nil
	}
	if len(a.free) == 0 {
		return 0, errNoAddress
	}
	n := a.free[0]
	a.free = a.free[1:]
	return n, nil
}

// release gives a number back.
func (a *addresses) release(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = append(a.free, n)
}
