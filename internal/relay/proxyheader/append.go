package proxyheader

import (
	"encoding/binary"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Append adds to b the header of version 2 for a client at the source that connected to the destination. With two
// addresses of IPv4 it has 28 bytes; else 52, and an IPv4 address is in its IPv6 form. Where one of the addresses is
// invalid it is the header of 16 bytes that names no client. Zones are left out.
func Append(b []byte, source, destination netip.AddrPort) []byte {
	from, to := source.Addr().Unmap(), destination.Addr().Unmap()
	b = append(b, proxyproto.SIGV2...)
	switch {
	case !from.IsValid() || !to.IsValid():
		return append(b, byte(proxyproto.LOCAL), byte(proxyproto.UNSPEC), 0, 0)
	case from.Is4() && to.Is4():
		b = append(b, byte(proxyproto.PROXY), byte(proxyproto.TCPv4), 0, sizeIPv4)
		from4, to4 := from.As4(), to.As4()
		b = append(append(b, from4[:]...), to4[:]...)
	default:
		b = append(b, byte(proxyproto.PROXY), byte(proxyproto.TCPv6), 0, sizeIPv6)
		from6, to6 := from.As16(), to.As16()
		b = append(append(b, from6[:]...), to6[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, source.Port())
	return binary.BigEndian.AppendUint16(b, destination.Port())
}
