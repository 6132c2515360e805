package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// AddrPort is the address to listen at. Without a host it is [::], which takes IPv4 too.
func (l Listener) AddrPort() (netip.AddrPort, error) { return listenAddress(l.Address) }

func listenAddress(text string) (netip.AddrPort, error) {
	full := text
	if strings.HasPrefix(text, ":") {
		full = "[::]" + text
	}
	a, err := netip.ParseAddrPort(full)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an IP address and port such as 127.0.0.1:6443", text)
	}
	if a.Port() == 0 {
		return netip.AddrPort{}, errors.New("port 0 is not a port")
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// Prefixes are the networks of From, masked. A plain address is a network of itself.
func (p ProxyProtocol) Prefixes() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range p.From {
		n, err := network(text)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(text)
	if err != nil || n.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 10.0.0.0/8", text)
	}
	return n.Masked(), nil
}

// backendAddress says what is wrong with a host and port to connect to. addr is invalid where the host is a name.
func backendAddress(text string) (addr netip.AddrPort, err error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return addr, fmt.Errorf("%q is not a host and port such as 10.0.0.1:6443", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return addr, fmt.Errorf("%q is not a port", port)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return addr, fmt.Errorf("%s is not the address of one host", ip)
		}
		return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if len(validation.IsDNS1123Subdomain(name)) > 0 || looksLikeIPv4(name) {
		return addr, fmt.Errorf("%q is neither an IP address nor a name", host)
	}
	return addr, nil
}

// looksLikeIPv4 finds what would pass for a name, but is a mistyped address: no domain has a number at its end.
func looksLikeIPv4(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	_, err := strconv.Atoi(last)
	return err == nil
}

// overlap says whether a socket that listens at one address is in the way of the other. One at [::] takes IPv4 too.
func overlap(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() {
		return false
	}
	return covers(a.Addr(), b.Addr()) || covers(b.Addr(), a.Addr())
}

func covers(a, b netip.Addr) bool {
	return a == b || a.IsUnspecified() && (a.Is6() || b.Is4())
}
