package tcp

import (
	"fmt"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fromRaw reads an address that the kernel wrote: struct sockaddr_in or sockaddr_in6.
func fromRaw(sa *unix.RawSockaddrInet6) netip.AddrPort {
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), swapped(v4.Port))
	}
	addr := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
	}
	return netip.AddrPortFrom(addr, swapped(sa.Port))
}

// toRaw returns an address as the kernel reads it, its size, and its family. A zone counts if it is a number.
func toRaw(a netip.AddrPort) (sa unix.RawSockaddrInet6, size uintptr, family int) {
	addr := a.Addr().Unmap()
	if addr.Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(a.Port()), Addr: addr.As4()}
		return sa, unix.SizeofSockaddrInet4, unix.AF_INET
	}
	scope, _ := strconv.ParseUint(addr.Zone(), 10, 32)
	sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(a.Port()), Addr: addr.As16(), Scope_id: uint32(scope)}
	return sa, unix.SizeofSockaddrInet6, unix.AF_INET6
}

// swapped turns a port between the network's order of bytes and the machine's.
func swapped(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// Local returns the own address of a socket.
func Local(fd int) (netip.AddrPort, error) { return name(fd, unix.SYS_GETSOCKNAME) }

// Peer returns the address of the other end.
func Peer(fd int) (netip.AddrPort, error) { return name(fd, unix.SYS_GETPEERNAME) }

func name(fd int, call uintptr) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, fmt.Errorf("ask for the address of a socket: %w", errno)
	}
	return fromRaw(&sa), nil
}
