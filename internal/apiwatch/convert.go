package apiwatch

import (
	"fmt"
	"net/netip"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"

	"varco.dev/internal/service"
)

// converter gathers what was wrong with an object.
type converter struct{ problems []error }

func (c *converter) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(format, args...))
}

// addrs converts addresses. Empty ones say nothing, and old objects have them.
func (c *converter) addrs(field string, values []string) (out []netip.Addr) {
	for _, v := range values {
		if strings.TrimSpace(v) == "" {
			continue
		}
		a, err := parseAddr(v)
		if err != nil {
			c.problem("%s: %w", field, err)
			continue
		}
		if out == nil {
			out = make([]netip.Addr, 0, len(values))
		}
		out = append(out, a)
	}
	return out
}

// prefixes converts networks. Kubernetes has let them be padded with spaces.
func (c *converter) prefixes(field string, values []string) (out []netip.Prefix) {
	for _, v := range values {
		v = strings.TrimSpace(v)
		if v == "" {
			continue
		}
		p, err := parsePrefix(v)
		if err != nil {
			c.problem("%s: %w", field, err)
			continue
		}
		out = append(out, p)
	}
	return out
}

func (c *converter) port(field string, n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		c.problem("%s: %d is not between 1 and 65535", field, n)
		return 0, false
	}
	return uint16(n), true
}

func (c *converter) protocol(field string, p corev1.Protocol) (service.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return service.TCP, true
	case corev1.ProtocolUDP:
		return service.UDP, true
	case corev1.ProtocolSCTP:
		return service.SCTP, true
	}
	c.problem("%s: %q is not TCP, UDP or SCTP", field, p)
	return 0, false
}

// parseAddr reads an address as Kubernetes does, which lets numbers of old objects begin with zeros.
func parseAddr(s string) (netip.Addr, error) {
	ip := netutils.ParseIPSloppy(s)
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return a, fmt.Errorf("%q is not an IP address", s)
	}
	a = a.Unmap()
	if a.IsUnspecified() || a.IsMulticast() {
		return a, fmt.Errorf("%s is not an address that traffic can be sent to", a)
	}
	return a, nil
}

// parsePrefix reads a network as Kubernetes does. What is behind the prefix is cleared.
func parsePrefix(s string) (netip.Prefix, error) {
	_, network, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
	}
	a, _ := netip.AddrFromSlice(network.IP)
	bits, size := network.Mask.Size()
	if a = a.Unmap(); a.Is4() && size == 128 { // written as IPv4-mapped
		bits = max(0, bits-96)
	}
	return netip.PrefixFrom(a, bits).Masked(), nil
}

// shared returns the same text, in memory that all objects share: few names of namespaces, ports, nodes and zones are in
// very many objects.
func shared(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
