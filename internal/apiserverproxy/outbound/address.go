package outbound

import (
	"iter"
	"net/netip"
)

// Reason says why an address is refused. It is short and one of few, so that it can be a metric's label.
type Reason string

// The reasons.
const (
	Unspecified Reason = "unspecified" // "this host": Linux takes 0.0.0.0 and :: for loopback
	Loopback    Reason = "loopback"
	LinkLocal   Reason = "link-local"
	Metadata    Reason = "metadata" // of the cloud: hands out the machine's credentials
	Multicast   Reason = "multicast"
	Broadcast   Reason = "broadcast"
	Reserved    Reason = "reserved"
	Zoned       Reason = "zone"      // fe80::1%eth0: means something on one link only
	Malformed   Reason = "malformed" // not an IP address with a port
	Own         Reason = "own"       // an API server, or a listener of this process
	NoKubelet   Reason = "kubelet"   // a kubelet's port that is an API server's
	Denied      Reason = "denied"    // by Config.Deny
)

// block is a part of the address space that no target may be in.
type block struct {
	prefix netip.Prefix
	reason Reason
}

// blocks4 and blocks6 are in the order in which they are looked at. That of Go's IsGlobalUnicast, which Kubernetes asks
// (k8s.io/kubernetes, pkg/proxy/util.IsProxyableIP), is a part of it. Private addresses are what clusters are made of.
var (
	blocks4 = []block{
		{netip.MustParsePrefix("169.254.169.254/32"), Metadata}, // AWS, Azure, Google, Oracle, DigitalOcean, OpenStack, …
		{netip.MustParsePrefix("169.254.170.2/32"), Metadata},   // AWS: credentials of ECS tasks
		{netip.MustParsePrefix("169.254.170.23/32"), Metadata},  // AWS: EKS Pod Identity Agent
		{netip.MustParsePrefix("169.254.42.42/32"), Metadata},   // Scaleway (cloud-init, datasources/scaleway)
		{netip.MustParsePrefix("100.100.100.200/32"), Metadata}, // Alibaba Cloud
		{netip.MustParsePrefix("192.0.0.192/32"), Metadata},     // Oracle Cloud Classic
		{netip.MustParsePrefix("168.63.129.16/32"), Metadata},   // Azure's WireServer
		{netip.MustParsePrefix("0.0.0.0/8"), Unspecified},       // RFC 1122, 3.2.1.3
		{netip.MustParsePrefix("127.0.0.0/8"), Loopback},        // RFC 1122, 3.2.1.3
		{netip.MustParsePrefix("169.254.0.0/16"), LinkLocal},    // RFC 3927
		{netip.MustParsePrefix("224.0.0.0/4"), Multicast},       // RFC 5771
		{netip.MustParsePrefix("255.255.255.255/32"), Broadcast},
		{netip.MustParsePrefix("240.0.0.0/4"), Reserved}, // RFC 1112, 4: class E
	}
	blocks6 = []block{
		{netip.MustParsePrefix("fd00:ec2::/32"), Metadata},          // AWS: all services that an instance has by itself (::254, ::23)
		{netip.MustParsePrefix("fd20:ce::254/128"), Metadata},       // Google Cloud
		{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), Metadata}, // Oracle Cloud
		{netip.MustParsePrefix("fd00:42::42/128"), Metadata},        // Scaleway (cloud-init, datasources/scaleway)
		{netip.MustParsePrefix("fd00:a9fe:a9fe::1/128"), Metadata},  // Akamai (cloud-init, datasources/akamai)
		{netip.MustParsePrefix("fe80::a9fe:a9fe/128"), Metadata},    // OpenStack (Nova, metadata service)
		{netip.MustParsePrefix("::/128"), Unspecified},              // RFC 4291, 2.5.2
		{netip.MustParsePrefix("::1/128"), Loopback},                // RFC 4291, 2.5.3
		{netip.MustParsePrefix("fe80::/10"), LinkLocal},             // RFC 4291, 2.5.6
		{netip.MustParsePrefix("ff00::/8"), Multicast},              // RFC 4291, 2.7
	}
)

// Refused says whether no target may have the address, whatever the configuration, and why. "" is none. Addresses that
// others lead to count too: mapped, translated and tunnelled IPv4.
func Refused(a netip.Addr) Reason {
	if a.Zone() != "" {
		return Zoned
	}
	for a := range meanings(a) {
		if r := refused(a); r != "" {
			return r
		}
	}
	return ""
}

// refused is Refused of one address as it stands.
func refused(a netip.Addr) Reason {
	if !a.IsValid() {
		return Malformed
	}
	blocks := blocks6
	if a.Is4() {
		blocks = blocks4
	}
	for _, b := range blocks {
		if b.prefix.Contains(a) {
			return b.reason
		}
	}
	return ""
}

// wrapping is an IPv6 prefix whose addresses hold an IPv4 address that their packets can end up at.
type wrapping struct {
	prefix netip.Prefix
	at     [4]int // bytes that hold it
	flip   byte   // what they are XORed with
	sparse bool   // the bytes hold it for some networks; 0.0.0.0/8 there means that they do not
}

var wrappings = []wrapping{
	{prefix: netip.MustParsePrefix("::/96"), at: [4]int{12, 13, 14, 15}},                     // IPv4-compatible: RFC 4291, 2.5.5.1
	{prefix: netip.MustParsePrefix("::ffff:0:0:0/96"), at: [4]int{12, 13, 14, 15}},           // IPv4-translated: RFC 2765, 2.1
	{prefix: netip.MustParsePrefix("64:ff9b::/96"), at: [4]int{12, 13, 14, 15}},              // NAT64: RFC 6052, 2.1
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), at: [4]int{12, 13, 14, 15}},            // NAT64 of the site: RFC 8215,
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), at: [4]int{6, 7, 9, 10}, sparse: true}, // by any prefix of RFC 6052, 2.2
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), at: [4]int{7, 9, 10, 11}, sparse: true},
	{prefix: netip.MustParsePrefix("64:ff9b:1::/48"), at: [4]int{9, 10, 11, 12}, sparse: true},
	{prefix: netip.MustParsePrefix("2002::/16"), at: [4]int{2, 3, 4, 5}},                 // 6to4: RFC 3056, 2
	{prefix: netip.MustParsePrefix("2001::/32"), at: [4]int{4, 5, 6, 7}},                 // Teredo, the server: RFC 4380, 4
	{prefix: netip.MustParsePrefix("2001::/32"), at: [4]int{12, 13, 14, 15}, flip: 0xff}, // and the client
}

// meanings yields an address and the IPv4 addresses that packets to it can end up at. Prefixes that a network has chosen
// for its own NAT64 are not known here; Config.Deny takes them.
func meanings(a netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		a = a.Unmap() // RFC 4291, 2.5.5.2
		if !yield(a) || !a.Is6() {
			return
		}
		b := a.As16()
		for _, w := range wrappings {
			inner, ok := w.unwrap(a, b)
			if ok && !yield(inner) {
				return
			}
		}
		if isatap := b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe; isatap { // RFC 5214, 6.1
			yield(netip.AddrFrom4([4]byte(b[12:])))
		}
	}
}

// unwrap returns the IPv4 address in an address, which is given as bytes too.
func (w wrapping) unwrap(a netip.Addr, b [16]byte) (inner netip.Addr, ok bool) {
	if !w.prefix.Contains(a) {
		return inner, false
	}
	var v4 [4]byte
	for i, at := range w.at {
		v4[i] = b[at] ^ w.flip
	}
	return netip.AddrFrom4(v4), !w.sparse || v4[0] != 0
}
