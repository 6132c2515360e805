package service

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Name is the namespace and name of an API object.
type Name struct{ Namespace, Name string }

// String returns "namespace/name".
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// MarshalText returns String, so that JSON holds one word.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// Compare orders names by namespace, then name.
func (n Name) Compare(m Name) int {
	return cmp.Or(cmp.Compare(n.Namespace, m.Namespace), cmp.Compare(n.Name, m.Name))
}

// Protocol is a transport protocol by its number in the IP header (IANA protocol numbers).
type Protocol uint8

// The protocols of Service ports.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the name as nftables and people write it, "tcp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}

// MarshalText returns String, so that JSON holds the name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Family is an IP family by its version number.
type Family uint8

// The IP families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "ipv4" or "ipv6".
func (f Family) String() string { return fmt.Sprintf("ipv%d", uint8(f)) }

// MarshalText returns String, so that JSON holds the name.
func (f Family) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// families returns the IP families in the order in which pairs hold them.
func families() [2]Family { return [...]Family{IPv4, IPv6} }

// FamilyOf returns the family of a valid address. IPv4-mapped IPv6 addresses must have been unmapped.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Key names one port of a Service in one IP family, the unit of all work. The port's name may be empty; the same number
// on TCP and UDP is two ports.
type Key struct {
	Service  Name
	Port     string
	Protocol Protocol
	Family   Family
}

// String returns "namespace/name:port/protocol/family".
func (k Key) String() string {
	return fmt.Sprintf("%s:%s/%s/%s", k.Service, k.Port, k.Protocol, k.Family)
}

// Compare orders keys by Service, port, protocol, family.
func (k Key) Compare(l Key) int {
	return cmp.Or(
		k.Service.Compare(l.Service),
		cmp.Compare(k.Port, l.Port),
		cmp.Compare(k.Protocol, l.Protocol),
		cmp.Compare(k.Family, l.Family),
	)
}
