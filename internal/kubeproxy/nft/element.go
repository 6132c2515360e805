package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"varco.dev/internal/service"
)

// Place is where an element stands: a key in a set of the table of a family.
type Place struct {
	Family service.Family
	Set    Set
	Key    string // bytes as the kernel keeps them in registers
}

// Element is an element of a set or map. Value is empty where the set is not a map.
type Element struct {
	Place
	Value string // bytes, like Key
}

// Compare orders elements by family, set, key, value.
func (e Element) Compare(f Element) int {
	switch {
	case e.Family != f.Family:
		return cmp.Compare(e.Family, f.Family)
	case e.Set != f.Set:
		return cmp.Compare(e.Set, f.Set)
	case e.Key != f.Key:
		return cmp.Compare(e.Key, f.Key)
	}
	return cmp.Compare(e.Value, f.Value)
}

// String returns the element as nft would write it, such as "ip services 10.96.0.1 . tcp . 443 : cluster-1 . 7".
func (e Element) String() string {
	s := fmt.Sprintf("%s %s %s", tableFamily(e.Family), e.Set, text(e.Set.key(), e.Key, e.Family))
	if v := e.Set.value(); v != nil {
		s += " : " + text(v, e.Value, e.Family)
	}
	return s
}

// tableFamily is nft's word for the family of a table.
func tableFamily(f service.Family) string {
	if f == service.IPv4 {
		return "ip"
	}
	return "ip6"
}

// encoder packs fields into registers of 4 bytes: addresses, ports and protocols as in packets, numbers as the
// processor has them.
type encoder []byte

func (e encoder) addr(a netip.Addr) encoder { return append(e, a.AsSlice()...) }

func (e encoder) proto(p service.Protocol) encoder { return append(e, byte(p), 0, 0, 0) }

func (e encoder) port(p uint16) encoder {
	return append(binary.BigEndian.AppendUint16(e, p), 0, 0)
}

func (e encoder) number(n uint32) encoder { return binary.NativeEndian.AppendUint32(e, n) }

func (e encoder) token(t uint64) encoder { return binary.NativeEndian.AppendUint64(e, t) }

func (e encoder) class(c Class) encoder {
	class, arg := c.words()
	return e.number(class).number(arg)
}

// text decodes fields for people.
func text(fields []field, b string, family service.Family) string {
	var parts []string
	for _, f := range fields {
		n := f.size(family)
		if len(b) < n {
			return fmt.Sprintf("invalid %q", b)
		}
		parts = append(parts, fieldText(f, []byte(b[:n])))
		b = b[n:]
	}
	return strings.Join(parts, " . ")
}

func fieldText(f field, b []byte) string {
	switch f {
	case addr:
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	case proto:
		return service.Protocol(b[0]).String()
	case port:
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	case class:
		return classOf(binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])).String()
	case token:
		return fmt.Sprintf("%016x", binary.NativeEndian.Uint64(b))
	case refusal:
		return Refusal(binary.NativeEndian.Uint32(b)).String()
	case addrType:
		return "local"
	default:
		return fmt.Sprint(binary.NativeEndian.Uint32(b))
	}
}

// classIn returns the class in the value of an element that points to one.
func classIn(value string) Class {
	b := []byte(value)
	return classOf(binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:]))
}

// bitsIn returns the prefix length in the place of an element of Sources.
func bitsIn(p Place) uint32 {
	return binary.NativeEndian.Uint32([]byte(p.Key[addr.size(p.Family)+proto.size(p.Family)+port.size(p.Family):]))
}

// idIn returns the id in the value of such an element.
func idIn(value string) uint32 { return binary.NativeEndian.Uint32([]byte(value[12:])) }
