package nft

import (
	"net/netip"
	"slices"

	"varco.dev/internal/service"
)

// rtnLocal is RTN_LOCAL of linux/rtnetlink.h, the type of routes to the node's own addresses.
const rtnLocal = 2

// RenderNode returns the elements for the addresses at which NodePorts are served. It is pure.
//
// The unspecified address stands for all local addresses but the loopback ones. The loopback address of IPv6 is left out: the
// kernel takes a connection from it to a pod, but not the answer, because ::1 is reached by no interface but lo.
func RenderNode(addrs []netip.Addr) []Element {
	var out []Element
	add := func(a netip.Addr, s Set, key encoder) {
		e := Element{Place: Place{service.FamilyOf(a), s, string(key)}}
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	for _, a := range addrs {
		if a.IsUnspecified() {
			add(a, NodeTypes, encoder{}.number(rtnLocal))
			continue
		}
		if a == netip.IPv6Loopback() {
			continue
		}
		add(a, NodeAddrs, encoder{}.addr(a))
	}
	return out
}

// RenderCIDRs returns the elements for the networks that ClusterIPs are taken from. It is pure. A network within another
// one is left out, because intervals must not overlap.
func RenderCIDRs(cidrs []netip.Prefix) []Element {
	var out []Element
	for _, p := range cidrs {
		covered := func(q netip.Prefix) bool { return q != p && q.Bits() <= p.Bits() && q.Contains(p.Addr()) }
		if !slices.ContainsFunc(cidrs, covered) {
			key := encoder{}.addr(p.Masked().Addr()).addr(lastOf(p))
			out = append(out, Element{Place: Place{service.FamilyOf(p.Addr()), ServiceCIDRs, string(key)}})
		}
	}
	return out
}

// lastOf returns the last address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
