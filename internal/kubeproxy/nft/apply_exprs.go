package nft

import (
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// Registers of 4 bytes. Keys are built from regKey on. What the map of a frontend tells is kept beside it; the slot is in
// the register after the id, so that both are the key of the backend.
const (
	regKey   = unix.NFT_REG32_00
	regValue = unix.NFT_REG32_08
	regClass = unix.NFT_REG32_09 // with the class's second word after it
	regID    = unix.NFT_REG32_11
	regSlot  = unix.NFT_REG32_12
	regSpare = unix.NFT_REG32_13 // with regDraw after it
	regDraw  = unix.NFT_REG32_14
)

// hairpinKey loads source, destination, protocol and port.
func (t *table) hairpinKey() []expr.Any {
	n := t.addrRegs()
	e := append(t.loadAddr(regKey, true), t.loadAddr(regKey+n, false)...)
	return append(e, loadProtoPort(regKey+2*n)...)
}

// masked loads the source or destination address, as far as it belongs to a network of so many bits.
func (t *table) masked(reg uint32, bits int, source bool) []expr.Any {
	e, size := t.loadAddr(reg, source), addr.size(t.family)
	if bits < 8*size {
		mask := net.CIDRMask(bits, 8*size)
		e = append(e, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(size), Mask: mask, Xor: make([]byte, size)})
	}
	return e
}

// notIn goes on only if the address is outside the network; within is the opposite.
func (t *table) notIn(cidr netip.Prefix, source bool) []expr.Any {
	return append(t.masked(regKey, cidr.Bits(), source), &expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: cidr.Masked().Addr().AsSlice()})
}

func (t *table) within(cidr netip.Prefix, source bool) []expr.Any {
	return append(t.masked(regKey, cidr.Bits(), source), &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: cidr.Masked().Addr().AsSlice()})
}

// interfaceName compares the name of the interface that the packet came in by; there is none for packets of the node.
// With prefix, only the beginning of the name counts.
func interfaceName(op expr.CmpOp, name string, prefix bool) []expr.Any {
	data := []byte(name)
	if !prefix {
		data = append(data, make([]byte, max(0, unix.IFNAMSIZ-len(name)))...)
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: regKey}, &expr.Cmp{Op: op, Register: regKey, Data: data}}
}

func stateNew() []expr.Any   { return ctHas(expr.CtKeySTATE, expr.CtStateBitNEW) }
func statusDNAT() []expr.Any { return ctHas(expr.CtKeySTATUS, 1<<5) } // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h

// stateBegins goes on only if the packet is no part of a connection that is known: it is new, invalid or untracked.
func stateBegins() []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: regKey, Key: expr.CtKeySTATE},
		bitwise(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, 0),
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: number(0)},
	}
}

// ctHas goes on only if the connection's field has one of the bits.
func ctHas(key expr.CtKey, bits uint32) []expr.Any {
	return append([]expr.Any{&expr.Ct{Register: regKey, Key: key}}, has(bits)...)
}

// has goes on only if regKey has one of the bits.
func has(bits uint32) []expr.Any {
	return []expr.Any{bitwise(bits, 0), &expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: number(0)}}
}

// bitwise computes regKey = regKey & mask ^ xor.
func bitwise(mask, xor uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: regKey, DestRegister: regKey, Len: 4, Mask: number(mask), Xor: number(xor)}
}

func number(n uint32) []byte { return encoder{}.number(n) }

// ifMarked goes on only if the packet has the mark, setMark and clearMark change it and leave the other bits alone.
func (t *table) ifMarked() []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: regKey}}, has(t.config.MasqueradeMark)...)
}

func (t *table) setMark() []expr.Any {
	return t.changeMark(^t.config.MasqueradeMark, t.config.MasqueradeMark)
}

func (t *table) clearMark() []expr.Any { return t.changeMark(^uint32(0), t.config.MasqueradeMark) }

func (t *table) changeMark(mask, xor uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regKey},
		bitwise(mask, xor),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regKey, SourceRegister: true},
	}
}

// masquerade takes a random source port, so that two connections opened at once do not race for the same one.
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{FullyRandom: true}} }

// protocol goes on only with packets of the protocol.
func protocol(p service.Protocol) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regKey},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{byte(p)}},
	}
}

// reset refuses a TCP connection as a closed port does. Unlike the ICMP error that says the same, it is not limited to one
// a second for each client (net.ipv4.icmp_ratelimit), beyond which clients would wait for their time-out.
func reset() []expr.Any {
	return append(protocol(service.TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
}

// unreachable answers that the port is unreachable.
func (t *table) unreachable() []expr.Any {
	code := uint8(3) // RFC 792, destination unreachable: port unreachable
	if t.family == service.IPv6 {
		code = 4 // RFC 4443
	}
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
}

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
