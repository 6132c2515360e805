package nettest

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LinkUp sets an interface up.
func (n *Namespace) LinkUp(name string) error {
	return n.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		return h.LinkSetUp(l)
	})
}

// AddBridge makes a bridge interface and sets it up.
func (n *Namespace) AddBridge(name string) error {
	return n.Netlink(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("add bridge %s: %w", name, err)
		}
		l, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		return h.LinkSetUp(l)
	})
}

// AddVeth makes a pair of interfaces, name here and peerName in peer, and sets both up.
func (n *Namespace) AddVeth(name string, peer *Namespace, peerName string) error {
	err := n.Netlink(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.FD())})
	})
	if err != nil {
		return fmt.Errorf("add veth %s to %s in %s: %w", name, peerName, peer.Name, err)
	}
	if err := n.LinkUp(name); err != nil {
		return err
	}
	return peer.LinkUp(peerName)
}

// DelLink removes an interface.
func (n *Namespace) DelLink(name string) error {
	return n.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		return h.LinkDel(l)
	})
}

// SetMaster makes an interface a port of a bridge of the same namespace.
func (n *Namespace) SetMaster(name, bridge string) error {
	return n.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		b, err := h.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("find bridge %s: %w", bridge, err)
		}
		return h.LinkSetMaster(l, b)
	})
}

// AddAddr gives an interface an address. IPv6 addresses are usable at once: duplicate address detection is left out.
func (n *Namespace) AddAddr(name string, addr netip.Prefix) error {
	return n.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		a := &netlink.Addr{IPNet: ipNet(addr)}
		if addr.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add address %s to %s: %w", addr, name, err)
		}
		return nil
	})
}

// AddRoute sends what goes to dst through a gateway, an interface, or both; an invalid via or an empty dev leaves that
// part out. A route to the same destination is replaced.
func (n *Namespace) AddRoute(dst netip.Prefix, via netip.Addr, dev string) error {
	return n.Netlink(func(h *netlink.Handle) error {
		r := &netlink.Route{Dst: ipNet(dst)}
		if via.IsValid() {
			r.Gw = net.IP(via.AsSlice())
		} else if dst.Addr().Is4() {
			r.Scope = netlink.SCOPE_LINK
		}
		if dev != "" {
			l, err := h.LinkByName(dev)
			if err != nil {
				return fmt.Errorf("find interface %s: %w", dev, err)
			}
			r.LinkIndex = l.Attrs().Index
		}
		if err := h.RouteReplace(r); err != nil {
			return fmt.Errorf("add route to %s via %s dev %q: %w", dst, via, dev, err)
		}
		return nil
	})
}

// DelAddr takes an address from an interface.
func (n *Namespace) DelAddr(name string, addr netip.Prefix) error {
	return n.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		return h.AddrDel(l, &netlink.Addr{IPNet: ipNet(addr)})
	})
}

// AddLocalRoute makes the addresses of dst the host's own by a route alone: no interface has them.
func (n *Namespace) AddLocalRoute(dst netip.Prefix) error {
	return n.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find interface lo: %w", err)
		}
		r := &netlink.Route{Dst: ipNet(dst), LinkIndex: l.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL}
		if dst.Addr().Is4() {
			r.Scope = netlink.SCOPE_HOST
		}
		if err := h.RouteReplace(r); err != nil {
			return fmt.Errorf("add local route to %s: %w", dst, err)
		}
		return nil
	})
}

// DelRoute removes the route to dst.
func (n *Namespace) DelRoute(dst netip.Prefix) error {
	return n.Netlink(func(h *netlink.Handle) error {
		return h.RouteDel(&netlink.Route{Dst: ipNet(dst)})
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
