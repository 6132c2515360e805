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
	}
	if set.IsMap {
		set.DataType = t.typeOf(s.value())
	}
	return set
}

// newVerdictMap describes a map from classes to verdicts.
func (t *table) newVerdictMap(name, comment string) *nftables.Set {
	return &nftables.Set{
		Table: t.table, Name: name, Comment: comment,
		KeyType: nftables.TypeMark, KeyByteOrder: binaryutil.NativeEndian, IsMap: true, DataType: nftables.TypeVerdict,
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
