package checked

import (
	"fmt"
	"net/netip"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"

	"varco.dev/internal/service"
)

// Fields reads the fields of one object, and gathers what is wrong with it. The zero value is ready to use.
type Fields struct {
	Problems []error
}

// Problem notes what is wrong, in the manner of fmt.Errorf.
func (c *Fields) Problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Errorf(format, args...))
}

// Addrs converts addresses. Empty ones say nothing, and old objects have them.
func (c *Fields) Addrs(field string, values []string) (out []netip.Addr) {
	for _, v := range values {
		if strings.TrimSpace(v) == "" {
			continue
		}
		a, err := ParseAddr(v)
		if err != nil {
			c.Problem("%s: %w", field, err)
			continue
		}
		if out == nil {
			out = make([]netip.Addr, 0, len(values))
		}
		out = append(out, a)
	}
	return out
}

// Prefixes converts networks. Kubernetes has let them be padded with spaces.
func (c *Fields) Prefixes(field string, values []string) (out []netip.Prefix) {
	for _, v := range values {
		v = strings.TrimSpace(v)
		if v == "" {
			continue
		}
		p, err := parsePrefix(v)
		if err != nil {
			c.Problem("%s: %w", field, err)
			continue
		}
		out = append(out, p)
	}
	return out
}

// Port converts the number of a port. ok is false if it is not one from 1 to 65535.
func (c *Fields) Port(field string, n int32) (port uint16, ok bool) {
	if n < 1 || n > 65535 {
		c.Problem("%s: %d is not between 1 and 65535", field, n)
		return 0, false
	}
	return uint16(n), true
}

// Protocol converts the name of a protocol, TCP if there is none. ok is false if it is not one that Kubernetes knows.
func (c *Fields) Protocol(field string, p corev1.Protocol) (out service.Protocol, ok bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return service.TCP, true
	case corev1.ProtocolUDP:
		return service.UDP, true
	case corev1.ProtocolSCTP:
		return service.SCTP, true
	}
	c.Problem("%s: %q is not TCP, UDP or SCTP", field, p)
	return 0, false
}

// ParseAddr reads an address as Kubernetes does, which lets numbers of old objects begin with zeros. It is unmapped, and one
// that traffic can be sent to: no unspecified and no multicast address.
func ParseAddr(s string) (netip.Addr, error) {
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

// Shared returns the same text, in memory that all objects share: few names of namespaces, ports, nodes and zones are in
// very many objects.
func Shared(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// Deref returns what p points to; otherwise if it is nil.
func Deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
