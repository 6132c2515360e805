package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// listSize bounds the elements of one message: the attribute that holds them all must be shorter than 64 KiB.
const listSize = 60 << 10 // bytes

// keepSize bounds the memory that is kept for the next transaction.
const keepSize = 256 << 10 // bytes

// batch is a transaction as the kernel reads it: netlink messages, one after the other. Elements are written here and not
// by google/nftables, which makes 1 KB of garbage for each; at 30,000 Services that would be 100 MB at once.
type batch struct {
	buffer []byte
	next   uint32 // sequence number of the next message
	start  int    // where the last message begins
}

// begin starts a transaction.
func (b *batch) begin() {
	b.buffer = b.buffer[:0]
	b.edge(unix.NFNL_MSG_BATCH_BEGIN)
}

// shrink gives back the memory of a big transaction.
func (b *batch) shrink() {
	if cap(b.buffer) > keepSize {
		b.buffer = nil
	}
}

// request begins a message that is none of a transaction. close ends it.
func (b *batch) request(kind, flags uint16, family byte) {
	b.buffer = b.buffer[:0]
	b.open(kindOf(kind), flags, family)
}

// end closes the transaction and returns the sequence number of its last message that does something. Only this one is
// acknowledged; it is so when the kernel has committed. Errors come for any message.
func (b *batch) end() (last uint32) {
	header := b.buffer[b.start:]
	flags := binary.NativeEndian.Uint16(header[6:])
	binary.NativeEndian.PutUint16(header[6:], flags|unix.NLM_F_ACK)
	last = b.next - 1
	b.edge(unix.NFNL_MSG_BATCH_END)
	return last
}

// edge writes the message that opens or closes a transaction.
func (b *batch) edge(kind uint16) {
	b.open(kind, 0, 0)
	binary.BigEndian.PutUint16(b.buffer[len(b.buffer)-2:], unix.NFNL_SUBSYS_NFTABLES)
	b.close()
}

// open begins a message of nfnetlink.
func (b *batch) open(kind, flags uint16, family byte) {
	b.header(kind, flags)
	b.buffer = append(b.buffer, family, unix.NFNETLINK_V0, 0, 0)
}

// header begins a message with what each one begins with.
func (b *batch) header(kind, flags uint16) {
	b.start = len(b.buffer)
	b.buffer = binary.NativeEndian.AppendUint32(b.buffer, 0) // length: see close
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, kind)
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, unix.NLM_F_REQUEST|flags)
	b.buffer = binary.NativeEndian.AppendUint32(b.buffer, b.next)
	b.buffer = binary.NativeEndian.AppendUint32(b.buffer, 0) // sender: the kernel knows
	b.next++
}

// close ends what open began.
func (b *batch) close() {
	binary.NativeEndian.PutUint32(b.buffer[b.start:], uint32(len(b.buffer)-b.start))
}

// copy writes messages of google/nftables.
func (b *batch) copy(all []netlink.Message) {
	for _, m := range all {
		b.header(uint16(m.Header.Type), uint16(m.Header.Flags&^netlink.Acknowledge))
		b.buffer = append(b.buffer, m.Data...)
		b.buffer = append(b.buffer, "\x00\x00\x00"[:align(len(m.Data))-len(m.Data)]...)
		b.close()
	}
}

// describe says what the message with a sequence number does, for errors.
func (b *batch) describe(sequence uint32) string {
	for m := range messages(b.buffer) {
		if m.sequence != sequence || len(m.body) < nfgenSize {
			continue
		}
		family, second := familyName(m.body[0]), text0(attributes(m.body[nfgenSize:]).find(2))
		switch m.kind {
		case unix.NFNL_MSG_BATCH_BEGIN:
			return "commit"
		case kindOf(unix.NFT_MSG_NEWSETELEM):
			return fmt.Sprintf("add elements to %s %s", family, second)
		case kindOf(unix.NFT_MSG_DELSETELEM):
			return fmt.Sprintf("delete elements of %s %s", family, second)
		case kindOf(unix.NFT_MSG_NEWRULE):
			return fmt.Sprintf("add a rule to %s %s", family, second)
		case kindOf(unix.NFT_MSG_NEWCHAIN), kindOf(unix.NFT_MSG_DELCHAIN), kindOf(unix.NFT_MSG_NEWSET):
			return fmt.Sprintf("make or delete %s %s", family, second)
		}
		return fmt.Sprintf("message %d of kind %#x", sequence, m.kind)
	}
	return fmt.Sprintf("message %d", sequence)
}

func familyName(number byte) string {
	if number == unix.NFPROTO_IPV4 {
		return tableFamily(service.IPv4)
	}
	return tableFamily(service.IPv6)
}

// attr writes an attribute.
func attr[T string | []byte](b *batch, kind uint16, content T) {
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, uint16(unix.NLA_HDRLEN+len(content)))
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, kind)
	b.buffer = append(b.buffer, content...)
	b.buffer = append(b.buffer, "\x00\x00\x00"[:align(len(content))-len(content)]...)
}

// name writes an attribute that is a string.
func (b *batch) name(kind uint16, s string) {
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, uint16(unix.NLA_HDRLEN+len(s)+1))
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, kind)
	b.buffer = append(b.buffer, s...)
	b.buffer = append(b.buffer, "\x00\x00\x00\x00"[:align(len(s)+1)-len(s)]...)
}

// nest begins an attribute of attributes and returns where.
func (b *batch) nest(kind uint16) (start int) {
	start = len(b.buffer)
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, 0)
	b.buffer = binary.NativeEndian.AppendUint16(b.buffer, kind|unix.NLA_F_NESTED)
	return start
}

// unnest ends what nest began.
func (b *batch) unnest(start int) {
	binary.NativeEndian.PutUint16(b.buffer[start:], uint16(len(b.buffer)-start))
}

// elements writes messages that add or delete elements, which are best sorted by family and set.
func (b *batch) elements(kind uint16, elements []Element) {
	for len(elements) > 0 {
		first := elements[0].Place
		b.open(kindOf(kind), unix.NLM_F_CREATE, netFamily(first.Family))
		b.name(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		b.name(unix.NFTA_SET_ELEM_LIST_SET, first.Set.String())
		list := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(elements) && len(b.buffer)-list < listSize {
			e := &elements[n]
			if e.Set != first.Set || e.Family != first.Family {
				break
			}
			b.element(e)
			n++
		}
		b.unnest(list)
		b.close()
		elements = elements[n:]
	}
}

func (b *batch) element(e *Element) {
	if e.Set == ServiceCIDRs {
		b.interval(e.Key)
		return
	}
	item := b.nest(unix.NFTA_LIST_ELEM)
	b.data(unix.NFTA_SET_ELEM_KEY, e.Key)
	if e.Value != "" {
		b.data(unix.NFTA_SET_ELEM_DATA, e.Value)
	}
	b.unnest(item)
}

// interval writes the first address of an interval and the one after the last, which is how the kernel has it.
func (b *batch) interval(key string) {
	first, last := key[:len(key)/2], key[len(key)/2:]
	item := b.nest(unix.NFTA_LIST_ELEM)
	b.data(unix.NFTA_SET_ELEM_KEY, first)
	b.unnest(item)
	address, _ := netip.AddrFromSlice([]byte(last))
	after := address.Next()
	if !after.IsValid() { // an interval that has no end reaches up to the last address of all
		return
	}
	item = b.nest(unix.NFTA_LIST_ELEM)
	b.data(unix.NFTA_SET_ELEM_KEY, string(after.AsSlice()))
	attr(b, unix.NFTA_SET_ELEM_FLAGS, binary.BigEndian.AppendUint32(nil, unix.NFT_SET_ELEM_INTERVAL_END))
	b.unnest(item)
}

// data writes an attribute that holds the content of registers.
func (b *batch) data(kind uint16, content string) {
	nest := b.nest(kind)
	attr(b, unix.NFTA_DATA_VALUE, content)
	b.unnest(nest)
}

// kindOf returns the kind of a message of nf_tables as netlink has it.
func kindOf(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

// netFamily returns the kernel's number of a family.
func netFamily(f service.Family) byte {
	if f == service.IPv4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}
