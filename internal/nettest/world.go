package nettest

import (
	"errors"
	"fmt"
	"net/netip"
)

// Addresses of a World. Every host has an IPv4 and an IPv6 address; Host n of a network has n as its last part.
var (
	NodeNet   = Dual{netip.MustParsePrefix("10.240.0.0/16"), netip.MustParsePrefix("fd00:240::/64")}
	PodNet    = Dual{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}
	ClientNet = Dual{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:113::/64")}
)

// RouterHost and ClientHost are the host numbers of the router (in NodeNet and ClientNet) and of the client.
const (
	RouterHost = 1
	ClientHost = 10
)

// Dual is one prefix of each IP family.
type Dual struct{ V4, V6 netip.Prefix }

// Prefixes returns both, IPv4 first.
func (d Dual) Prefixes() []netip.Prefix { return []netip.Prefix{d.V4, d.V6} }

// Host returns the addresses number n of both networks, with the networks' lengths. n is between 1 and 65534.
func (d Dual) Host(n int) Dual {
	return Dual{hostOf(d.V4, n), hostOf(d.V6, n)}
}

func hostOf(p netip.Prefix, n int) netip.Prefix {
	b := p.Masked().Addr().AsSlice()
	b[len(b)-2] |= byte(n >> 8)
	b[len(b)-1] |= byte(n)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits())
}

// Addrs returns the two addresses without their networks' lengths.
func (d Dual) Addrs() []netip.Addr { return []netip.Addr{d.V4.Addr(), d.V6.Addr()} }

// Single returns the two addresses as networks of one address each.
func (d Dual) Single() Dual {
	return Dual{netip.PrefixFrom(d.V4.Addr(), 32), netip.PrefixFrom(d.V6.Addr(), 128)}
}

// PodNetOf returns the networks of the pods of node number i, 0 to 255: a /24 and a /64 of PodNet.
func PodNetOf(i int) Dual {
	v4, v6 := PodNet.V4.Addr().As4(), PodNet.V6.Addr().As16()
	v4[2], v6[7] = byte(i), byte(i)
	return Dual{netip.PrefixFrom(netip.AddrFrom4(v4), 24), netip.PrefixFrom(netip.AddrFrom16(v6), 64)}
}

// World is a network of hosts on one bridge, and a client behind a router that knows nothing of pods:
//
//	pod ─ node ─┐
//	pod ─ node ─┼─ bridge ─ router ─ client
//	      host ─┘
type World struct {
	bridge *Namespace
	Router *Namespace
	Client *Namespace
	hosts  []*Namespace
	ports  int
}

// NewWorld makes the bridge, the router and the client. It needs root.
func NewWorld() (w *World, err error) {
	w = &World{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if w.bridge, err = NewNamespace("bridge"); err != nil {
		return w, err
	}
	if err = w.bridge.AddBridge("br0"); err != nil {
		return w, err
	}
	if w.Router, err = w.addHost("router", NodeNet.Host(RouterHost)); err != nil {
		return w, err
	}
	if w.Client, err = NewNamespace("client"); err != nil {
		return w, err
	}
	return w, w.connectClient()
}

func (w *World) connectClient() error {
	if err := w.Router.Forward(); err != nil {
		return err
	}
	if err := w.Router.AddVeth("client", w.Client, "eth0"); err != nil {
		return err
	}
	gateway, client := ClientNet.Host(RouterHost), ClientNet.Host(ClientHost)
	for i := range 2 {
		if err := w.Router.AddAddr("client", gateway.Prefixes()[i]); err != nil {
			return err
		}
		if err := w.Client.AddAddr("eth0", client.Prefixes()[i]); err != nil {
			return err
		}
		if err := w.Client.AddDefaultRoute(gateway.Addrs()[i]); err != nil {
			return err
		}
	}
	return nil
}

// AddHost puts a machine on the bridge, with the address number host of NodeNet on eth0 and the router as its gateway.
// It forwards packets, as a node does.
func (w *World) AddHost(name string, host int) (*Namespace, error) {
	n, err := w.addHost(name, NodeNet.Host(host))
	if err != nil {
		return nil, err
	}
	for _, a := range NodeNet.Host(RouterHost).Addrs() {
		if err := n.AddDefaultRoute(a); err != nil {
			return nil, err
		}
	}
	return n, n.Forward()
}

func (w *World) addHost(name string, addrs Dual) (*Namespace, error) {
	n, err := NewNamespace(name)
	if err != nil {
		return nil, err
	}
	w.hosts = append(w.hosts, n)
	port := fmt.Sprintf("port%d", w.ports)
	w.ports++
	if err := n.AddVeth("eth0", w.bridge, port); err != nil {
		return nil, err
	}
	if err := w.bridge.SetMaster(port, "br0"); err != nil {
		return nil, err
	}
	for _, a := range addrs.Prefixes() {
		if err := n.AddAddr("eth0", a); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Close lets go of all namespaces of the world. Those that nothing else holds are gone then, with what is in them.
func (w *World) Close() error {
	var errs []error
	for _, n := range append(w.hosts, w.bridge, w.Client) {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// AddDefaultRoute sends everything of the gateway's family to it.
func (n *Namespace) AddDefaultRoute(gateway netip.Addr) error {
	zero := netip.IPv4Unspecified()
	if gateway.Is6() {
		zero = netip.IPv6Unspecified()
	}
	return n.AddRoute(netip.PrefixFrom(zero, 0), gateway, "")
}

// Forward makes the namespace forward packets of both families.
func (n *Namespace) Forward() error {
	for key, value := range map[string]string{
		"net.ipv4.ip_forward":             "1",
		"net.ipv6.conf.all.forwarding":    "1",
		"net.ipv4.conf.all.rp_filter":     "0",
		"net.ipv4.conf.default.rp_filter": "0",
	} {
		if err := n.Sysctl(key, value); err != nil {
			return fmt.Errorf("set %s in %s: %w", key, n.Name, err)
		}
	}
	return nil
}

// AddPod joins pod to node by a veth pair, routed and not bridged: eth0 in the pod has the address, and its only
// neighbour is the node, which has the gateway address on the other end, ifname.
func AddPod(node, pod *Namespace, ifname string, addrs, gateway Dual) error {
	if err := node.AddVeth(ifname, pod, "eth0"); err != nil {
		return err
	}
	for i, a := range addrs.Single().Prefixes() {
		gw := gateway.Single().Prefixes()[i]
		if err := node.AddAddr(ifname, gw); err != nil {
			return err
		}
		if err := node.AddRoute(a, netip.Addr{}, ifname); err != nil {
			return err
		}
		if err := pod.AddAddr("eth0", a); err != nil {
			return err
		}
		if err := pod.AddRoute(gw, netip.Addr{}, "eth0"); err != nil {
			return err
		}
		if err := pod.AddDefaultRoute(gw.Addr()); err != nil {
			return err
		}
	}
	return nil
}
