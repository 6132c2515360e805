package nettest

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// maxDatagram is what an Echo reads of a datagram, of which it only needs to know that it came.
const maxDatagram = 64

// datagrams is a socket of UDP that answers from the address that was asked. A host with several addresses would otherwise
// choose one of them, which the client, and the kernel's translation of addresses, know nothing of.
type datagrams interface {
	read() (asked netip.Addr, client net.Addr, err error)
	write(b []byte, from netip.Addr, to net.Addr) error
	Close() error
}

type datagrams4 struct{ *ipv4.PacketConn }

func openDatagrams4(n *Namespace, port uint16) (datagrams, error) {
	c, err := n.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(c)
	return datagrams4{p}, p.SetControlMessage(ipv4.FlagDst, true)
}

func (d datagrams4) read() (asked netip.Addr, client net.Addr, err error) {
	_, cm, client, err := d.ReadFrom(make([]byte, maxDatagram))
	if err == nil && cm != nil {
		asked, _ = netip.AddrFromSlice(cm.Dst)
	}
	return asked.Unmap(), client, err
}

func (d datagrams4) write(b []byte, from netip.Addr, to net.Addr) error {
	_, err := d.WriteTo(b, &ipv4.ControlMessage{Src: from.AsSlice()}, to)
	return err
}

type datagrams6 struct{ *ipv6.PacketConn }

func openDatagrams6(n *Namespace, port uint16) (datagrams, error) {
	c, err := n.ListenPacket("udp6", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(c)
	return datagrams6{p}, p.SetControlMessage(ipv6.FlagDst, true)
}

func (d datagrams6) read() (asked netip.Addr, client net.Addr, err error) {
	_, cm, client, err := d.ReadFrom(make([]byte, maxDatagram))
	if err == nil && cm != nil {
		asked, _ = netip.AddrFromSlice(cm.Dst)
	}
	return asked, client, err
}

func (d datagrams6) write(b []byte, from netip.Addr, to net.Addr) error {
	_, err := d.WriteTo(b, &ipv6.ControlMessage{Src: from.AsSlice()}, to)
	return err
}
