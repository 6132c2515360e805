package sctp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// socket is a raw socket that tells which address a packet was sent to, and sends from a given one: a host with
// several addresses must answer from the one that was asked.
type socket interface {
	read(b []byte) (n int, src, dst netip.Addr, err error)
	write(b []byte, src, dst netip.Addr) error
	Close() error
}

// openSockets opens a socket of each family that addr stands for: one for a given address, both for none or for "::".
func openSockets(addr netip.Addr) ([]socket, error) {
	var sockets []socket
	for _, host := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if addr.IsValid() && addr != netip.IPv6Unspecified() {
			if addr.Is4() != host.Is4() {
				continue
			}
			host = addr
		}
		s, err := openSocket(host)
		if err != nil {
			return nil, errors.Join(err, closeAll(sockets))
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func openSocket(host netip.Addr) (socket, error) {
	c, err := net.ListenPacket(rawNetwork(host), host.String())
	if err != nil {
		return nil, fmt.Errorf("open raw socket for SCTP (needs root or CAP_NET_RAW): %w", err)
	}
	if host.Is4() {
		p := ipv4.NewPacketConn(c)
		return socket4{p}, p.SetControlMessage(ipv4.FlagDst, true)
	}
	p := ipv6.NewPacketConn(c)
	return socket6{p}, p.SetControlMessage(ipv6.FlagDst, true)
}

func closeAll(sockets []socket) error {
	var errs []error
	for _, s := range sockets {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

type socket4 struct{ *ipv4.PacketConn }

func (s socket4) read(b []byte) (n int, src, dst netip.Addr, err error) {
	n, cm, from, err := s.ReadFrom(b)
	if err != nil || cm == nil {
		return n, src, dst, err
	}
	return n, addrOf(from), toAddr(cm.Dst), nil
}

func (s socket4) write(b []byte, src, dst netip.Addr) error {
	_, err := s.WriteTo(b, &ipv4.ControlMessage{Src: src.AsSlice()}, &net.IPAddr{IP: dst.AsSlice()})
	return err
}

type socket6 struct{ *ipv6.PacketConn }

func (s socket6) read(b []byte) (n int, src, dst netip.Addr, err error) {
	n, cm, from, err := s.ReadFrom(b)
	if err != nil || cm == nil {
		return n, src, dst, err
	}
	return n, addrOf(from), toAddr(cm.Dst), nil
}

func (s socket6) write(b []byte, src, dst netip.Addr) error {
	to := &net.IPAddr{IP: dst.AsSlice(), Zone: dst.Zone()}
	_, err := s.WriteTo(b, &ipv6.ControlMessage{Src: src.AsSlice()}, to)
	return err
}

func addrOf(a net.Addr) netip.Addr {
	if ip, ok := a.(*net.IPAddr); ok {
		return toAddr(ip.IP).WithZone(ip.Zone)
	}
	return netip.Addr{}
}

func toAddr(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
