package nft

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
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

// loadProtoPort loads the transport protocol and the destination port.
func loadProtoPort(reg uint32) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}, loadPort(reg+1, false)...)
}

// loadPort loads the source or destination port, which is at the same place in TCP, UDP and SCTP.
func loadPort(reg uint32, source bool) []expr.Any {
	offset := uint32(2)
	if source {
		offset = 0
	}
	return []expr.Any{&expr.Payload{
		OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader,
		DestRegister: reg, Offset: offset, Len: 2,
	}}
}

// get looks up a frontend and goes on with the fields of its value in their registers, only if there is one. which are the
// registers that the rule uses.
//
// The mark in front of the look-up, which overwrites it, is for nft: see disguise.
func get(s *nftables.Set, which ...uint32) []expr.Any {
	var e []expr.Any
	for _, reg := range which {
		e = append(e, disguise(reg)...)
	}
	return append(e, lookup(s, regKey, regValue)...)
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

// toClass looks up a frontend and goes to the chain of its class.
func (t *table) toClass(s Set) []expr.Any {
	verdicts := t.verdicts
	if s == Shortcuts || s == NodePortShortcuts {
		verdicts = t.shortcuts
	}
	return append(get(t.sets[s], regClass, regClass+1), lookup(verdicts, regClass, unix.NFT_REG_VERDICT)...)
}

// refuse looks up a frontend and goes where the map says for its refusal.
func (t *table) refuse(s Set) []expr.Any {
	return append(get(t.sets[s], regClass), lookup(t.refusals, regClass, unix.NFT_REG_VERDICT)...)
}

// key loads what a frontend of a set is found by.
func (t *table) key(s Set) []expr.Any { return t.keyAt(regKey, s) }

func (t *table) keyAt(reg uint32, s Set) []expr.Any {
	if s.key()[0] == addr {
		return append(t.loadAddr(reg, false), loadProtoPort(reg+t.addrRegs())...)
	}
	return loadProtoPort(reg)
}

// atNodeAddr goes on only at an address that is listed as one that serves NodePorts.
func (t *table) atNodeAddr() []expr.Any {
	return append(t.loadAddr(regKey, false), in(t.sets[NodeAddrs])...)
}

// atLocalAddr goes on only at a local address that is no loopback one, and only if all of these serve NodePorts.
func (t *table) atLocalAddr() []expr.Any {
	e := append([]expr.Any{&expr.Fib{Register: regKey, FlagDADDR: true, ResultADDRTYPE: true}}, in(t.sets[NodeTypes])...)
	return append(e, t.notIn(t.loopback(), false)...)
}

// loopback returns the network of loopback addresses.
func (t *table) loopback() netip.Prefix {
	if t.family == service.IPv6 {
		return netip.PrefixFrom(netip.IPv6Loopback(), 128)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)
}

// fromThisNode goes on only if the packet's source is an address of the node.
func fromThisNode() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: regKey, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: number(rtnLocal)},
	}
}

// draw puts a slot of a class with n slots into regSlot. It comes before the look-up of the id, because it writes over
// regID.
//
// The way through regDraw, and the copy of two registers of which nft sees the first only, are the disguise of regSlot: a
// random number is of a type that no declared key can have.
func (t *table) draw(b service.Balance, n int) []expr.Any {
	var number []expr.Any
	switch b {
	case service.Maglev:
		regs := t.addrRegs()
		number = slices.Concat(
			t.loadAddr(regKey, true), loadPort(regKey+regs, true),
			t.loadAddr(regKey+regs+1, false), loadPort(regKey+2*regs+1, false),
			hash(8*(regs+1), MaglevSlots))
	case service.HashSourceIP:
		number = append(t.loadAddr(regKey, true), hash(4*t.addrRegs(), n)...)
	default:
		number = []expr.Any{&expr.Numgen{Register: regDraw, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM}}
	}
	return slices.Concat(disguise(regSlot), disguise(regSpare), number, copyRegs(regSpare, regID, 2))
}

// hashSeed is the same on all nodes, so that they send a client to the same backend.
const hashSeed = 0x76617263

// hash puts a hash of the key into regDraw, spread evenly below n.
func hash(length uint32, n int) []expr.Any {
	return []expr.Any{&expr.Hash{
		SourceRegister: regKey, Length: length, DestRegister: regDraw, Modulus: uint32(n), Seed: hashSeed, Type: expr.HashTypeJenkins,
	}}
}

// copyRegs copies registers, of which nft sees the first only.
func copyRegs(from, into uint32, n int) []expr.Any {
	return []expr.Any{&expr.Bitwise{
		SourceRegister: from, DestRegister: into, Len: uint32(4 * n), Mask: slices.Repeat([]byte{0xff}, 4*n), Xor: make([]byte, 4*n),
	}}
}

// copyHidden copies registers of which the first has nothing in it, so that nft sees nothing of what is copied. The kernel
// copies four at once at most; where another piece begins, there must be the middle of an IPv6 address in the copy.
func (t *table) copyHidden(from, into uint32, n int) (e []expr.Any) {
	for ; n > 0; from, into, n = from+4, into+4, n-4 {
		e = slices.Concat(e, copyRegs(from, into, min(n, 4)))
	}
	return e
}

// toBackend changes the destination to the backend with the id and slot in the registers.
func (t *table) toBackend() []expr.Any {
	return append(lookup(t.sets[Endpoints], regID, regKey), t.dnat(regKey)...)
}

// dnat changes the destination to the address and port in registers.
func (t *table) dnat(reg uint32) []expr.Any {
	return []expr.Any{&expr.NAT{
		Type: expr.NATTypeDestNAT, Family: uint32(t.table.Family), RegAddrMin: reg, RegProtoMin: reg + t.addrRegs(),
	}}
}
