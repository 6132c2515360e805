package outbound

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
)

// guard decides which addresses are dialled.
type guard struct {
	deny    []netip.Prefix
	own     func() []netip.AddrPort
	metrics *metrics
	log     *slog.Logger

	// exempt are addresses that tests have their targets at.
	exempt func(netip.AddrPort) bool
}

// control is net.Dialer.ControlContext: it sees the very address that the socket connects to, after all resolution. A name
// that resolves to another address the next time gains nothing (CVE-2020-8562).
func (g *guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return g.refuse(address, Malformed)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return g.refuse(address, Malformed)
	}
	return g.check(to)
}

// check returns a *RefusedError if the address is not to be dialled.
func (g *guard) check(to netip.AddrPort) error {
	if r := g.reason(to); r != "" {
		return g.refuse(to.String(), r)
	}
	return nil
}

func (g *guard) reason(to netip.AddrPort) Reason {
	if g.exempt != nil && g.exempt(to) {
		return ""
	}
	if r := Refused(to.Addr()); r != "" {
		return r
	}
	var own []netip.AddrPort
	if g.own != nil {
		own = g.own()
	}
	for a := range meanings(to.Addr()) {
		if isOwn(own, netip.AddrPortFrom(a, to.Port())) {
			return Own
		}
		if slices.ContainsFunc(g.deny, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return Denied
		}
	}
	return ""
}

func (g *guard) refuse(address string, r Reason) error {
	g.metrics.refused.WithLabelValues(string(r)).Inc()
	g.log.Debug("an address was refused", "address", address, "reason", r)
	return &RefusedError{Address: address, Why: r.sentence()}
}

// isOwn says whether an address is one of those that are the cluster's or our own.
func isOwn(own []netip.AddrPort, to netip.AddrPort) bool {
	for _, o := range own {
		if o.Port() != to.Port() {
			continue
		}
		a := o.Addr().WithZone("").Unmap()
		if a == to.Addr() || a.IsUnspecified() && isOfHost(to.Addr()) {
			return true
		}
	}
	return false
}

// isOfHost says whether an interface of this host has the address. It costs a system call or two, and is only asked when
// the port is that of a listener on all addresses. If the host does not tell, it may have it.
func isOfHost(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(addrs, func(of net.Addr) bool {
		text, _, _ := strings.Cut(of.String(), "/")
		parsed, err := netip.ParseAddr(text)
		return err == nil && parsed.WithZone("").Unmap() == a
	})
}
