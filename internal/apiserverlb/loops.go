package apiserverlb

import (
	"net"
	"net/netip"
	"slices"
)

// own tells whether a connection to an address would come to a listener, one that is about to open included: it would go
// round in circles.
func (lb *LB) own(addr netip.AddrPort) bool {
	at := lb.listeners.addresses()
	for _, l := range lb.settings.Load().Listeners {
		if a, err := l.AddrPort(); err == nil {
			at = append(at, a)
		}
	}
	return slices.ContainsFunc(at, func(l netip.AddrPort) bool { return leadsTo(addr, l) })
}

// leadsTo tells whether a connection to an address of this machine comes to a listener.
func leadsTo(addr, listener netip.AddrPort) bool {
	if addr == listener {
		return true
	}
	all := listener.Addr()
	return all.IsUnspecified() && listener.Port() == addr.Port() && (all.Is6() || addr.Addr().Is4()) && local(addr.Addr())
}

func (ls *listeners) addresses() (out []netip.AddrPort) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.open {
		out = append(out, addrOf(l.keep))
	}
	return out
}

// local says whether an address is one of this machine.
func local(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == addr
	})
}
