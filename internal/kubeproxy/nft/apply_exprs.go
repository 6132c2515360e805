package nft

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// Registers of 4 bytes. Keys are built from regKey on. What the map of a frontend tells is kept beside it; the slot is in
// the register after the id, so that both are the key of the backend.
const (
	regKey   = unix.NFT_REG32_00
	regValue = unix.NFT_REG32_08
	regClass = unix.NFT_REG32_09
	regID    = unix.NFT_REG32_10
	regSlot  = unix.NFT_REG32_11
	regSpare = unix.NFT_REG32_12 // with regDraw after it
	regDraw  = unix.NFT_REG32_13
)

// addrRegs is the number of registers that an address takes.
func (t *table) addrRegs() uint32 { return uint32(addr.size(t.family) / 4) }

// loadAddr loads the source or destination address.
func (t *table) loadAddr(reg uint32, source bool) []expr.Any {
	offset, size := uint32(12), uint32(4) // RFC 791
	if t.family == service.IPv6 {
		offset, size = 8, 16 // RFC 8200
	}
	if !source {
		offset += size
	}
	return []expr.Any{&expr.Payload{
		OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader,
		DestRegister: reg, Offset: offset, Len: size,
	}}
}

// loadProtoPort loads the transport protocol and the destination port, which is at the same place in TCP, UDP and SCTP.
func loadProtoPort(reg uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Payload{
			OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader,
			DestRegister: reg + 1, Offset: 2, Len: 2,
		},
	}
}

// get looks up a frontend and goes on with its class and id in their registers, only if there is one. which is the one
// of the two registers that the rule uses.
//
// The mark in front of the look-up, which overwrites it, is for nft: see disguise.
func get(s *nftables.Set, which uint32) []expr.Any {
	return append(disguise(which), lookup(s, regKey, regValue)...)
}

// disguise makes nft print "meta mark" for what is in a register later.
//
// nft does not know that a value from a map takes several registers. It aborts when it lists a rule that uses one of
// which it does not know what is in it (seen with 1.0.6; 1.1.6 has the same code), so that no ruleset of the machine could
// be listed. And what it prints must be a rule that it can load, or a saved listing is lost with all that is in it. The
// mark is both; loaded from a listing, the rule does nothing, because a mark is neither a class nor an id.
func disguise(reg uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}}
}

func lookup(s *nftables.Set, from, into uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: from, DestRegister: into, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}}
}

// in goes on only if the key is an element of the set.
func in(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: regKey, SetName: s.Name, SetID: s.ID}}
}

// vmap goes where the map says for the class in its register.
func vmap(s *nftables.Set) []expr.Any {
	return lookup(s, regClass, unix.NFT_REG_VERDICT)
}

// serviceKey loads what a frontend is found by.
func (t *table) serviceKey() []expr.Any {
	return append(t.loadAddr(regKey, false), loadProtoPort(regKey+t.addrRegs())...)
}

// nodePortKey does the same for NodePorts; it goes on only at an address that serves them.
func (t *table) nodePortKey() []expr.Any {
	e := append(t.loadAddr(regKey, false), in(t.sets[NodeAddrs])...)
	return append(e, loadProtoPort(regKey)...)
}

// randomSlot draws a slot below n. It comes before the look-up of the id, because it writes over regID.
//
// The way through regDraw, and the copy of two registers of which nft sees the first only, are the disguise of regSlot: a
// random number is of a type that no declared key can have.
func randomSlot(n int) []expr.Any {
	ones := slices.Repeat([]byte{0xff}, 8)
	return slices.Concat(disguise(regSlot), disguise(regSpare), []expr.Any{
		&expr.Numgen{Register: regDraw, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Bitwise{SourceRegister: regSpare, DestRegister: regID, Len: 8, Mask: ones, Xor: make([]byte, 8)},
	})
}

// toBackend changes the destination to the backend with the id and slot in the registers.
func (t *table) toBackend() []expr.Any {
	return append(lookup(t.sets[Endpoints], regID, regKey),
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(t.table.Family), RegAddrMin: regKey, RegProtoMin: regKey + t.addrRegs()})
}

// hairpinKey loads source, destination, protocol and port.
func (t *table) hairpinKey() []expr.Any {
	n := t.addrRegs()
	e := append(t.loadAddr(regKey, true), t.loadAddr(regKey+n, false)...)
	return append(e, loadProtoPort(regKey+2*n)...)
}

// sourceNotIn goes on only if the packet's source is outside the network.
func (t *table) sourceNotIn(cidr netip.Prefix) []expr.Any {
	size := addr.size(t.family)
	mask := net.CIDRMask(cidr.Bits(), 8*size)
	return append(t.loadAddr(regKey, true),
		&expr.Bitwise{SourceRegister: regKey, DestRegister: regKey, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: cidr.Masked().Addr().AsSlice()},
	)
}

func stateNew() []expr.Any   { return ctHas(expr.CtKeySTATE, expr.CtStateBitNEW) }
func statusDNAT() []expr.Any { return ctHas(expr.CtKeySTATUS, 1<<5) } // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h

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
