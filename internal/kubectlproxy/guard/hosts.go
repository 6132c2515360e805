package guard

import (
	"net"
	"net/netip"
	"strings"
)

// acceptsHost looks at the Host header. What kubectl proxy accepts is accepted; so is a host that differs from such a
// one only in case, in the trailing dot of a full name, or in how an IPv6 address is written. Upstream takes the brackets
// off where there is a port, and its expression wants them: [::1]:8001 is refused there.
func (g *Guard) acceptsHost(header string) bool {
	name := withoutPort(header)
	if g.acceptHosts.match(name) {
		return true
	}
	if plain := plainHost(name); plain != name {
		return g.acceptHosts.match(plain)
	}
	return false
}

// withoutPort returns what stands before the port, as kubectl proxy reads it: [::1]:8001 loses its brackets, [::1] keeps
// them.
func withoutPort(header string) string {
	if strings.IndexByte(header, ':') < 0 && strings.IndexByte(header, '[') < 0 {
		return header
	}
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		return header
	}
	return host
}

// plainHost returns the one way to write a host: lower case, no trailing dot, IPv6 addresses short and in brackets.
func plainHost(name string) string {
	bare := name
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		bare = name[1 : len(name)-1]
	}
	if addr, err := netip.ParseAddr(bare); err == nil && addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return strings.TrimSuffix(strings.ToLower(name), ".")
}
