package apiwatch

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"varco.dev/internal/apiwatch/checked"
	"varco.dev/internal/service"
)

// Node is what a proxy needs to know of the Node object of its own node.
type Node struct {
	Exists   bool         // there is such an object; if it is gone, the rest is as it was last
	Addrs    []netip.Addr // that stand for the node: at most one of IPv4, then at most one of IPv6
	Zone     string       // label topology.kubernetes.io/zone
	PodCIDRs []netip.Prefix
	Taints   []string // keys of its taints, in the object's order
	Deleting bool     // it has a deletion timestamp
}

// NodeOf converts a Node. Parts that are not valid are left out and named in problems.
func NodeOf(n *corev1.Node) (out Node, problems []error) {
	c := converter{}
	out = Node{
		Exists:   true,
		Addrs:    nodeAddrs(n),
		Zone:     n.Labels[corev1.LabelTopologyZone],
		PodCIDRs: c.Prefixes("spec.podCIDRs", podCIDRs(n)),
		Deleting: !n.DeletionTimestamp.IsZero(),
	}
	for _, t := range n.Spec.Taints {
		out.Taints = append(out.Taints, t.Key)
	}
	return out, c.Problems
}

// withAddr puts an address in the place of the one of its family. One that is not valid changes nothing.
func withAddr(addrs []netip.Addr, a netip.Addr) []netip.Addr {
	if !a.IsValid() {
		return addrs
	}
	out := slices.DeleteFunc(slices.Clone(addrs), func(b netip.Addr) bool { return a.Is4() == b.Is4() })
	out = append(out, a)
	slices.SortFunc(out, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return out
}

// Table returns what a service.Table needs of it.
func (n Node) Table() service.Node { return service.Node{Zone: n.Zone, Addrs: n.Addrs} }

func (n Node) equal(m Node) bool {
	return n.Exists == m.Exists && n.Zone == m.Zone && n.Deleting == m.Deleting && slices.Equal(n.Addrs, m.Addrs) &&
		slices.Equal(n.PodCIDRs, m.PodCIDRs) && slices.Equal(n.Taints, m.Taints)
}

func podCIDRs(n *corev1.Node) []string {
	if len(n.Spec.PodCIDRs) == 0 {
		return []string{n.Spec.PodCIDR} // of old API servers
	}
	return n.Spec.PodCIDRs
}

// nodeAddrs returns the addresses of a node that stand for it, at most one per family: the first internal one, else the
// first external one.
func nodeAddrs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, family := range []service.Family{service.IPv4, service.IPv6} {
		if a, ok := nodeAddr(n, family); ok {
			out = append(out, a)
		}
	}
	return out
}

func nodeAddr(n *corev1.Node, family service.Family) (netip.Addr, bool) {
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			ip, err := checked.ParseAddr(a.Address)
			if a.Type == kind && err == nil && service.FamilyOf(ip) == family {
				return ip, true
			}
		}
	}
	return netip.Addr{}, false
}

// CIDRs converts a ServiceCIDR. Parts that are not valid are left out and named in problems.
func CIDRs(s *networkingv1.ServiceCIDR) (out []netip.Prefix, problems []error) {
	c := converter{}
	return c.Prefixes("spec.cidrs", s.Spec.CIDRs), c.Problems
}
