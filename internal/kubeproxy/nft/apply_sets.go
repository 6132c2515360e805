package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"varco.dev/internal/service"
)

// newSet describes a set for the kernel, with types that let `nft list` print it.
func (t *table) newSet(s Set) *nftables.Set {
	set := &nftables.Set{
		Table:   t.table,
		Name:    s.String(),
		Comment: s.comment(),
		KeyType: t.typeOf(s.key()),
		IsMap:   s.value() != nil,
		Counter: s.counts(),
	}
	if set.IsMap {
		set.DataType = t.typeOf(s.value())
	}
	switch s {
	case ServiceCIDRs: // the kernel has first and last address as two elements
		set.KeyType, set.Interval = t.typeOf([]field{addr}), true
	case NodeTypes:
		set.KeyByteOrder = binaryutil.NativeEndian
	}
	return set
}

// newVerdictMap describes a map from numbers to verdicts.
func (t *table) newVerdictMap(name, comment string, key field) *nftables.Set {
	return &nftables.Set{
		Table: t.table, Name: name, Comment: comment,
		KeyType: t.typeOf([]field{key}), KeyByteOrder: binaryutil.NativeEndian, IsMap: true, DataType: nftables.TypeVerdict,
	}
}

// newAffinity describes the map from clients to the backends that they were sent to last. Packets fill it.
func (t *table) newAffinity() *nftables.Set {
	key, comment := []field{id, addr}, "even id . client: id . token of the backend of its last connection"
	if t.family == service.IPv6 {
		key, comment = []field{addr}, "client, its first 4 bytes hashed with the even id: id . token of the backend of its last connection"
	}
	return &nftables.Set{
		Table: t.table, Name: "affinity", Comment: comment,
		KeyType: t.typeOf(key), IsMap: true, DataType: t.typeOf([]field{id, token}),
		Dynamic: true, HasTimeout: true, Size: t.config.affinitySize(),
	}
}

// typeOf returns nft's type for fields in registers.
func (t *table) typeOf(fields []field) nftables.SetDatatype {
	var types []nftables.SetDatatype
	for _, f := range fields {
		switch f {
		case addr:
			types = append(types, t.addrType())
		case proto:
			types = append(types, nftables.TypeInetProto)
		case port:
			types = append(types, nftables.TypeInetService)
		case addrType:
			types = append(types, nftables.TypeFIBAddr)
		case class, token:
			types = append(types, nftables.TypeMark, nftables.TypeMark)
		default:
			types = append(types, nftables.TypeMark)
		}
	}
	if len(types) == 1 {
		return types[0]
	}
	return nftables.MustConcatSetType(types...)
}

func (t *table) addrType() nftables.SetDatatype {
	if t.family == service.IPv4 {
		return nftables.TypeIPAddr
	}
	return nftables.TypeIP6Addr
}
