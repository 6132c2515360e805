package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// readAttempts bounds how often a part is read again because any program of the machine has changed its own tables
// meanwhile. What was read in the last attempt counts: what is wrong with it makes the next transaction fail.
const readAttempts = 5

// Bounds of reading sets that may be very big.
const (
	maxDumpedSlots  = 150000 // elements: a dump takes 0.5 s
	keysPerQuestion = 128    // whose answers, of 5 KB each, fit into half of the receive buffer
)

// Read implements Kernel.
func (n *Netlink) Read(ctx context.Context) (Content, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(ctx.Err(), n.dial()); err != nil {
		return Content{}, err
	}
	content, err := n.read()
	if err != nil {
		return Content{}, fmt.Errorf("read nftables: %w", explain(err))
	}
	return content, nil
}

// read returns what the tables of all families hold.
func (n *Netlink) read() (Content, error) {
	all := Content{Sound: true}
	for i, family := range n.config.Families {
		r := &reader{Netlink: n, family: family, seen: newBlueprint()}
		err := r.read()
		if errors.Is(err, unix.ENOENT) {
			return Content{}, nil
		}
		if err != nil {
			return Content{}, err
		}
		if !r.content.Sound || i > 0 && r.content.Generation != all.Generation {
			return Content{}, nil
		}
		all.Generation = r.content.Generation
		all.Elements = append(all.Elements, r.content.Elements...)
		all.Lengths = append(all.Lengths, r.content.Lengths...)
		slices.SortFunc(r.content.Classes, Class.Compare)
		slices.SortFunc(r.content.Retired, Class.Compare)
		if i > 0 && !slices.Equal(all.Classes, r.content.Classes) || i > 0 && !slices.Equal(all.Retired, r.content.Retired) {
			return Content{}, nil // they are made in all tables
		}
		all.Classes, all.Retired = r.content.Classes, r.content.Retired
	}
	slices.SortFunc(all.Lengths, SourceLength.Compare)
	slices.SortFunc(all.Elements, Element.Compare)
	all.Elements = slices.Compact(all.Elements) // while the kernel grows a set, it may tell an element twice
	return all, nil
}

// reader reads the table of one family.
type reader struct {
	*Netlink
	family  service.Family
	lenient bool // take what an interrupted dump gives
	seen    *blueprint
	content Content
	arena   []byte   // keys and values of a message
	lengths [][2]int // of each key and value in it
}

// read returns ENOENT if there is no table, or a part of it is missing.
func (r *reader) read() error {
	flags := []byte(nil)
	err := r.ask(unix.NFT_MSG_GETTABLE, 0, "", func(body attributes) { flags = body.find(unix.NFTA_TABLE_FLAGS) })
	if err != nil {
		return err
	}
	if !bytes.Equal(flags, make([]byte, len(flags))) { // dormant: its chains are switched off
		return nil
	}
	fixed, err := r.fixed(r.family)
	if err != nil {
		return err
	}
	own := false
	marks := func() (err error) { own, err = r.readMarks(fixed); return err }
	if err := r.consistent(marks, func() {}); err != nil || !own {
		return err
	}
	forget := func() { r.seen = newBlueprint() }
	if err := r.consistent(func() error { return r.readChains(fixed) }, forget); err != nil {
		return err
	}
	if r.content.Sound, err = r.sound(fixed); err != nil || !r.content.Sound {
		return err
	}
	for s := range Generations {
		n := len(r.content.Elements)
		forget := func() { r.content.Elements = r.content.Elements[:n] }
		if err := r.consistent(func() error { return r.readElements(s) }, forget); err != nil || !r.content.Sound {
			return err
		}
	}
	return nil
}

// consistent reads a part, and again if it was interrupted, before which forget takes back what was read.
func (r *reader) consistent(read func() error, forget func()) error {
	defer func() { r.lenient = false }()
	for attempt := 1; ; attempt++ {
		r.lenient = attempt == readAttempts
		err := read()
		if !errors.Is(err, errInterrupted) {
			return err
		}
		forget()
	}
}

// readChains reads all chains, their rules, and the maps that lead to them.
func (r *reader) readChains(fixed *fixedPart) error {
	for _, kind := range []uint16{unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE} {
		err := r.ask(kind, unix.NLM_F_DUMP, "", func(body attributes) { r.seen.see(kindOf(kind-1), body) })
		if err != nil {
			return err
		}
	}
	for _, set := range fixed.verdictMaps {
		err := r.ask(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, set, func(body attributes) {
			r.seen.see(kindOf(unix.NFT_MSG_NEWSETELEM), body)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readMarks reads who made the table, and tells whether it is made as this program makes it.
func (r *reader) readMarks(fixed *fixedPart) (bool, error) {
	marks := map[string]uint64{}
	err := r.ask(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, Generations.String(), func(body attributes) {
		for _, e := range body.find(unix.NFTA_SET_ELEM_LIST_ELEMENTS).all() {
			if key, value := keyAndValue(e); len(value) == 8 {
				marks[string(key)] = uint64(binary.NativeEndian.Uint32(value))<<32 | uint64(binary.NativeEndian.Uint32(value[4:]))
			}
		}
	})
	generation, ok := marks[string(number(keyGeneration))]
	r.content.Generation = Generation(generation)
	return ok && marks[string(number(keyLayout))] == fixed.hash, err
}

// sound tells whether the chains and what leads to them are as this program makes them, and notes for which classes and
// lengths there are some: nothing may be missing, and nothing may be there that is not accounted for.
func (r *reader) sound(fixed *fixedPart) (bool, error) {
	sources := r.seen.chains[chainSources]
	r.seen.chains[chainSources] = nil
	if !r.seen.without(fixed.blueprint) {
		return false, nil
	}
	if ok, err := r.soundLengths(sources); !ok {
		return false, err
	}
	for _, c := range r.seen.classes() {
		ofClass, err := r.blueprintOf(r.family, func(t *table) { t.addClass(c) })
		if err != nil || !r.seen.without(ofClass) {
			return false, err
		}
		r.content.Classes = append(r.content.Classes, c)
	}
	for name := range r.seen.chains {
		if c, ok := parseClass(name); ok {
			delete(r.seen.chains, name)
			r.content.Retired = append(r.content.Retired, c)
		}
	}
	return len(r.seen.chains) == 0 && len(r.seen.verdicts) == 0, nil
}

// soundLengths notes which lengths of source ranges have a rule.
func (r *reader) soundLengths(rules []string) (bool, error) {
	for bits := 8 * addr.size(r.family); bits >= 0 && len(r.content.Lengths) < len(rules); bits-- { // long ones are common
		l := SourceLength{Family: r.family, Bits: bits}
		rule, err := r.blueprintOf(r.family, func(t *table) { t.addLength(l) })
		if err != nil {
			return false, err
		}
		if slices.Contains(rules, rule.chains[chainSources][0]) {
			r.content.Lengths = append(r.content.Lengths, l)
		}
	}
	return len(r.content.Lengths) == len(rules), nil
}

// readElements reads a set.
func (r *reader) readElements(s Set) error {
	switch {
	case s == ServiceCIDRs:
		return r.readIntervals(s)
	case s == Endpoints || s == Tokens:
		if slots, total := r.slotsOf(s); total > maxDumpedSlots {
			return r.readSlots(s, slots)
		}
	}
	return r.ask(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, s.String(), func(body attributes) { r.take(s, body) })
}

// take enters the elements of a message.
func (r *reader) take(s Set, body attributes) {
	r.arena, r.lengths = r.arena[:0], r.lengths[:0]
	for _, e := range body.find(unix.NFTA_SET_ELEM_LIST_ELEMENTS).all() {
		key, value := keyAndValue(e)
		r.arena = append(append(r.arena, key...), value...)
		r.lengths = append(r.lengths, [2]int{len(key), len(value)})
	}
	rest := string(r.arena) // one for all elements of a message
	for _, n := range r.lengths {
		e := Element{Place{r.family, s, rest[:n[0]]}, rest[n[0] : n[0]+n[1]]}
		r.content.Elements = append(r.content.Elements, e)
		rest = rest[n[0]+n[1]:]
	}
}

// slotsOf returns how many slots each id has according to the frontends, which were read before.
func (r *reader) slotsOf(s Set) (slots map[uint32]int, total int) {
	slots = map[uint32]int{}
	for _, e := range r.content.Elements {
		if c, ok := e.Class(); ok && (s == Endpoints || c.Affinity > 0) {
			n := c.Backends
			if c.Balance == service.Maglev {
				n = MaglevSlots
			}
			id := idIn(e.Value)
			total += max(0, n-slots[id])
			slots[id] = max(n, slots[id])
		}
	}
	return slots, total
}

// readSlots reads a big set by asking for its elements, because what a dump costs grows with the square of their number:
// for each 32 KiB of it, the kernel walks over all that it has told before. With the 800,000 slots of a dozen Services that
// use Maglev, that takes minutes of a shared core. An element that is missing makes the tables unsound; one that no
// frontend leads to goes unseen until it is in the way, and then the tables are replaced.
func (r *reader) readSlots(s Set, slots map[uint32]int) error {
	var keys []string
	for id, n := range slots {
		for slot := range n {
			keys = append(keys, string(encoder{}.number(id).number(uint32(slot))))
			if len(keys) < keysPerQuestion && slot < n-1 {
				continue
			}
			err := r.askFor(s, keys)
			if errors.Is(err, unix.ENOENT) {
				r.content.Sound = false
				return nil
			}
			if err != nil {
				return err
			}
			keys = keys[:0]
		}
	}
	return nil
}

// askFor reads elements by their keys. The kernel answers each in a datagram of its own.
func (r *reader) askFor(s Set, keys []string) error {
	b := &r.batch
	b.request(unix.NFT_MSG_GETSETELEM, unix.NLM_F_ACK, netFamily(r.family))
	b.name(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	b.name(unix.NFTA_SET_ELEM_LIST_SET, s.String())
	list := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, key := range keys {
		item := b.nest(unix.NFTA_LIST_ELEM)
		b.data(unix.NFTA_SET_ELEM_KEY, key)
		b.unnest(item)
	}
	b.unnest(list)
	b.close()
	return r.answers(true, func(m message) { r.take(s, m.body[nfgenSize:]) })
}

func keyAndValue(element attributes) (key, value []byte) {
	return element.find(unix.NFTA_SET_ELEM_KEY).find(unix.NFTA_DATA_VALUE), element.find(unix.NFTA_SET_ELEM_DATA).find(unix.NFTA_DATA_VALUE)
}

// readIntervals reads a set of intervals. The kernel has them as two elements each, the first address and the one after the
// last; an interval that has no end reaches up to the last address of all.
func (r *reader) readIntervals(s Set) error {
	var starts, ends []string
	err := r.ask(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, s.String(), func(body attributes) {
		for _, e := range body.find(unix.NFTA_SET_ELEM_LIST_ELEMENTS).all() {
			element := attributes(e)
			key, _ := keyAndValue(element)
			if flags := element.find(unix.NFTA_SET_ELEM_FLAGS); len(flags) == 4 && flags[3]&unix.NFT_SET_ELEM_INTERVAL_END != 0 {
				ends = append(ends, string(key))
			} else {
				starts = append(starts, string(key))
			}
		}
	})
	slices.Sort(ends)
	for _, start := range starts {
		last := strings.Repeat("\xff", len(start))
		if i, _ := slices.BinarySearch(ends, start+"\x00"); i < len(ends) {
			last = before(ends[i])
		}
		r.content.Elements = append(r.content.Elements, Element{Place: Place{r.family, s, start + last}})
	}
	return err
}

// before returns the address before another one.
func before(address string) string {
	a, _ := netip.AddrFromSlice([]byte(address))
	return string(a.Prev().AsSlice())
}

// ask sends a request about the table, or one of its sets, and hands over each message of the answer. It returns the error
// that the kernel answers with, and errInterrupted if the answer is not of one moment.
func (r *reader) ask(kind, flags uint16, set string, visit func(attributes)) error {
	b := &r.batch
	b.request(kind, flags, netFamily(r.family))
	b.name(1, TableName) // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_ELEM_LIST_TABLE are alike
	if set != "" {
		b.name(unix.NFTA_SET_ELEM_LIST_SET, set)
	}
	b.close()
	err := r.answers(flags&unix.NLM_F_DUMP != 0, func(m message) {
		body := attributes(m.body[nfgenSize:])
		if text0(body.find(1)) == TableName {
			visit(body)
		}
	})
	if r.lenient && errors.Is(err, errInterrupted) {
		return nil
	}
	return err
}

// currentGeneration asks for the number of the kernel's present ruleset, which every kernel with nf_tables has.
func (n *Netlink) currentGeneration(ctx context.Context) (id uint32, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(ctx.Err(), n.dial()); err != nil {
		return 0, err
	}
	n.batch.request(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC)
	n.batch.close()
	err = n.answers(false, func(m message) {
		if number := attributes(m.body[nfgenSize:]).find(unix.NFTA_GEN_ID); len(number) == 4 {
			id = binary.BigEndian.Uint32(number)
		}
	})
	return id, err
}
