package kernel

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// Messages of connection tracking and their attributes (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctSubsystem = 1 // NFNL_SUBSYS_CTNETLINK
	ctGet       = 1
	ctDelete    = 2
	ctGetStats  = 4 // of each CPU

	ctaTupleOriginal = 1
	ctaTupleReply    = 2
	ctaStatus        = 3
	ctaProtoInfo     = 4
	ctaID            = 12
	ctaZone          = 18
	ctaFilter        = 25

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Source = 1
	ctaIPv4Dest   = 2
	ctaIPv6Source = 3
	ctaIPv6Dest   = 4

	ctaProtoNumber = 1
	ctaProtoSource = 2
	ctaProtoDest   = 3

	ctaProtoInfoTCP  = 1
	ctaProtoInfoSCTP = 3
	ctaState         = 1 // of both

	ctaFilterOriginal = 1
	filterProtoNumber = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM

	statusReplied = 1 << 1 // IPS_SEEN_REPLY
	statusDestNAT = 1 << 5 // IPS_DST_NAT
)

// anyProtocol asks for flows of all protocols: 0 is an IPv6 extension header, never a protocol of a flow.
const anyProtocol service.Protocol = 0

const (
	nfHeader        = 4 // bytes of struct nfgenmsg: family, version, resource
	attributeHeader = 4
	nested          = unix.NLA_F_NESTED
	attributeKind   = 0x3fff // NLA_TYPE_MASK: the rest are flags
)

// entry is a flow with what names it to the kernel: its original tuple, its zone if it has one, and its number, which tells
// it from a later flow of the same tuple. They are values of attributes.
type entry struct {
	flow            Flow
	family          uint8 // AF_INET or AF_INET6
	tuple, zone, id []byte
}

// name returns the attributes that name the entry in a request. It is never without a tuple, see dump: the kernel takes a
// deletion without one for a deletion of everything.
func (e entry) name() []byte {
	b := appendAttribute(nil, nested|ctaTupleOriginal, e.tuple)
	if len(e.zone) > 0 {
		b = appendAttribute(b, ctaZone, e.zone)
	}
	if len(e.id) > 0 {
		b = appendAttribute(b, ctaID, e.id)
	}
	return b
}

// dump visits the flows of a family and a protocol. It returns EINTR if it was interrupted, after all that there was.
func dump(conn *netlink.Conn, f service.Family, p service.Protocol, visit func(entry) error) error {
	family := uint8(unix.AF_INET)
	if f == service.IPv6 {
		family = unix.AF_INET6
	}
	if _, err := conn.Send(conntrackRequest(ctGet, netlink.Request|netlink.Dump, family, filter(p))); err != nil {
		return err
	}
	interrupted := false
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			return supported(err)
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		e, ok := parse(body(m.Data))
		if !ok || p != anyProtocol && e.flow.Protocol != p {
			continue
		}
		e.family, e.flow.Family = family, f
		if err := visit(e); err != nil {
			return err
		}
	}
	if interrupted {
		return unix.EINTR
	}
	return nil
}

// filter asks the kernel to leave out other protocols. Kernels before 5.8 do not understand it, and leave out none.
func filter(p service.Protocol) []byte {
	if p == anyProtocol {
		return nil
	}
	flags := binary.NativeEndian.AppendUint32(nil, filterProtoNumber)
	b := appendAttribute(nil, nested|ctaFilter, appendAttribute(nil, ctaFilterOriginal, flags))
	proto := appendAttribute(nil, nested|ctaTupleProto, appendAttribute(nil, ctaProtoNumber, []byte{byte(p)}))
	return appendAttribute(b, nested|ctaTupleOriginal, proto)
}

func conntrackRequest(kind uint8, flags netlink.HeaderFlags, family uint8, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(ctSubsystem<<8 | uint16(kind)), Flags: flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}
}

// body returns the attributes of a message.
func body(data []byte) []byte { return data[min(nfHeader, len(data)):] }

// parse reads the attributes of a flow. It says false if they are not those of a whole one.
func parse(b []byte) (e entry, ok bool) {
	var proto service.Protocol
	for kind, value := range attributes(b) {
		switch kind {
		case ctaTupleOriginal:
			e.tuple = value
			e.flow.Source, e.flow.Dest, e.flow.Protocol = parseTuple(value)
		case ctaTupleReply:
			e.flow.ReplySource, e.flow.ReplyDest, proto = parseTuple(value)
		case ctaStatus:
			if len(value) == 4 {
				status := binary.BigEndian.Uint32(value)
				e.flow.Replied, e.flow.DestNAT = status&statusReplied != 0, status&statusDestNAT != 0
			}
		case ctaProtoInfo:
			e.flow.TCPState, e.flow.SCTPState = parseState(value)
		case ctaZone:
			e.zone = value
			e.flow.Zone = port(value)
		case ctaID:
			e.id = value
		}
	}
	f := e.flow
	return e, f.Source.IsValid() && f.Dest.IsValid() && f.ReplySource.IsValid() && f.ReplyDest.IsValid() && f.Protocol == proto
}

func parseTuple(b []byte) (source, dest netip.AddrPort, p service.Protocol) {
	var from, to netip.Addr
	var fromPort, toPort uint16
	for kind, value := range attributes(b) {
		switch kind {
		case ctaTupleIP:
			from, to = parseAddrs(value)
		case ctaTupleProto:
			p, fromPort, toPort = parsePorts(value)
		}
	}
	return netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort), p
}

func parseAddrs(b []byte) (source, dest netip.Addr) {
	for kind, value := range attributes(b) {
		switch kind {
		case ctaIPv4Source, ctaIPv6Source:
			source, _ = netip.AddrFromSlice(value)
		case ctaIPv4Dest, ctaIPv6Dest:
			dest, _ = netip.AddrFromSlice(value)
		}
	}
	return source, dest
}

func parsePorts(b []byte) (p service.Protocol, source, dest uint16) {
	for kind, value := range attributes(b) {
		switch kind {
		case ctaProtoNumber:
			if len(value) == 1 {
				p = service.Protocol(value[0])
			}
		case ctaProtoSource:
			source = port(value)
		case ctaProtoDest:
			dest = port(value)
		}
	}
	return p, source, dest
}

func parseState(b []byte) (tcp, sctp uint8) {
	for protocol, info := range attributes(b) {
		for kind, value := range attributes(info) {
			switch {
			case kind != ctaState || len(value) != 1:
			case protocol == ctaProtoInfoTCP:
				tcp = value[0]
			case protocol == ctaProtoInfoSCTP:
				sctp = value[0]
			}
		}
	}
	return tcp, sctp
}

// port reads a number of two bytes.
func port(b []byte) uint16 {
	if len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// attributes yields kind and value of each netlink attribute in b, up to the first that is cut short.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attributeHeader {
			size := int(binary.NativeEndian.Uint16(b))
			if size < attributeHeader || size > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) & attributeKind
			if !yield(kind, b[attributeHeader:size]) {
				return
			}
			b = b[min(aligned(size), len(b)):]
		}
	}
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	size := attributeHeader + len(value)
	b = binary.NativeEndian.AppendUint16(b, uint16(size))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, value...), make([]byte, aligned(size)-size)...)
}

// aligned rounds up to the boundary at which the next attribute begins.
func aligned(n int) int { return (n + 3) &^ 3 }
