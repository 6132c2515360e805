package backend

import (
	"encoding/binary"
	"net/netip"
)

// HashAddr returns a key for an address; an IPv4 address in IPv6 form has that of the IPv4 address. It is the same in all
// processes, so that replicas agree.
func HashAddr(a netip.Addr) uint64 {
	b := a.As16() // the same for both forms
	return mix(mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:]))
}

func hashAddrPort(a netip.AddrPort) uint64 { return mix(HashAddr(a.Addr()) + uint64(a.Port())) }

// mix scatters the bits of a number: the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
