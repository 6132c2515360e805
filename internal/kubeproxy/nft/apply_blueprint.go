package nft

import (
	"encoding/binary"
	"hash/fnv"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// blueprint is what there is to see in a table of all that is not an element of Services: what the kernel lists can be
// compared with what was asked for, without understanding it.
type blueprint struct {
	chains   map[string][]string // the tags of the rules of each chain, in order
	verdicts map[verdict]string  // the chain that an element of a verdict map leads to
}

// verdict is an element of a verdict map.
type verdict struct{ set, key string }

func newBlueprint() *blueprint {
	return &blueprint{chains: map[string][]string{}, verdicts: map[verdict]string{}}
}

// fixedPart is what a transaction with Replace begins with, for one family.
type fixedPart struct {
	messages    []netlink.Message
	hash        uint64   // of the messages
	verdictMaps []string // names of the sets that lead to chains
	*blueprint
}

// fixed returns the fixed part for a family. It depends on the Config and this version of the program alone.
func (n *Netlink) fixed(family service.Family) (*fixedPart, error) {
	messages, err := n.record(family, TableName, func(t *table) {
		t.reset()
		t.addFixed()
	})
	if err != nil {
		return nil, err
	}
	f := &fixedPart{messages: messages, blueprint: newBlueprint()}
	hash := fnv.New64a()
	for _, m := range messages {
		hash.Write(m.Data)
		kind, body := uint16(m.Header.Type), attributes(m.Data[nfgenSize:])
		f.see(kind, body)
		if kind == kindOf(unix.NFT_MSG_NEWSET) && isVerdict(body.find(unix.NFTA_SET_DATA_TYPE)) {
			f.verdictMaps = append(f.verdictMaps, text0(body.find(unix.NFTA_SET_NAME)))
		}
	}
	f.hash = hash.Sum64()
	return f, nil
}

// blueprintOf returns what there is to see of what is added to the table of a family.
func (n *Netlink) blueprintOf(family service.Family, add func(*table)) (*blueprint, error) {
	messages, err := n.record(family, TableName, add)
	b := newBlueprint()
	for _, m := range messages {
		b.see(uint16(m.Header.Type), attributes(m.Data[nfgenSize:]))
	}
	return b, err
}

// classes returns the classes that elements of the map of classes lead from.
func (b *blueprint) classes() (all []Class) {
	for v := range b.verdicts {
		if (v.set == verdictClasses || v.set == verdictShortcuts) && len(v.key) == 8 {
			k := []byte(v.key)
			all = append(all, classOf(binary.NativeEndian.Uint32(k), binary.NativeEndian.Uint32(k[4:])))
		}
	}
	return all
}

// see enters a message that adds something to a table, be it to the kernel or from it.
func (b *blueprint) see(kind uint16, body attributes) {
	switch kind {
	case kindOf(unix.NFT_MSG_NEWCHAIN):
		chain := text0(body.find(unix.NFTA_CHAIN_NAME))
		if body.find(unix.NFTA_CHAIN_HOOK) != nil && dropsAll(body) {
			chain += " (policy drop)"
		}
		if _, known := b.chains[chain]; !known {
			b.chains[chain] = nil
		}
	case kindOf(unix.NFT_MSG_NEWRULE):
		chain := text0(body.find(unix.NFTA_RULE_CHAIN))
		b.chains[chain] = append(b.chains[chain], string(udata(body.find(unix.NFTA_RULE_USERDATA), tagType)))
	case kindOf(unix.NFT_MSG_NEWSETELEM):
		set := text0(body.find(unix.NFTA_SET_ELEM_LIST_SET))
		for _, e := range body.find(unix.NFTA_SET_ELEM_LIST_ELEMENTS).all() {
			element := attributes(e)
			goal := element.find(unix.NFTA_SET_ELEM_DATA).find(unix.NFTA_DATA_VERDICT)
			if goal != nil {
				key := element.find(unix.NFTA_SET_ELEM_KEY).find(unix.NFTA_DATA_VALUE)
				b.verdicts[verdict{set, string(key)}] = verdictText(goal)
			}
		}
	}
}

// verdictText returns the verdict and, if any, the chain that it leads to.
func verdictText(v attributes) string {
	return string(v.find(unix.NFTA_VERDICT_CODE)) + text0(v.find(unix.NFTA_VERDICT_CHAIN))
}

// isVerdict tells whether a type of data is that of verdicts.
func isVerdict(dataType []byte) bool {
	return len(dataType) == 4 && binary.BigEndian.Uint32(dataType) == unix.NFT_DATA_VERDICT
}

// dropsAll tells whether the policy of a base chain was changed to drop; that of ours is the default.
func dropsAll(chain attributes) bool {
	policy := chain.find(unix.NFTA_CHAIN_POLICY)
	return len(policy) == 4 && binary.BigEndian.Uint32(policy) != nfAccept
}

// without takes those of another blueprint out, and tells whether all of them were there and the same.
func (b *blueprint) without(other *blueprint) bool {
	for name, rules := range other.chains {
		if has, ok := b.chains[name]; !ok || !slices.Equal(has, rules) {
			return false
		}
		delete(b.chains, name)
	}
	for at, goal := range other.verdicts {
		if b.verdicts[at] != goal {
			return false
		}
		delete(b.verdicts, at)
	}
	return true
}

// Numbers of linux/netfilter.h, and of ours in the user data of a rule, which nft skips if it does not know the type.
const (
	nfgenSize = 4 // bytes of struct nfgenmsg
	nfAccept  = 1
	tagType   = 0x56

	verdictClasses   = "classes"          // the map from classes to their chains
	verdictShortcuts = "shortcut-classes" // the same for classes of shortcuts, which chains of others lead to
)

// tag writes a hash of its expressions into each rule, for people and kernel without a meaning. A rule that someone else
// has put in the place of ours, or changed, is told from it by that.
func tag(all []netlink.Message) {
	for i, m := range all {
		if uint16(m.Header.Type) != kindOf(unix.NFT_MSG_NEWRULE) {
			continue
		}
		hash := fnv.New64a()
		hash.Write(m.Data)
		var own []byte
		data := slices.Clone(m.Data[:nfgenSize])
		b := batch{buffer: data}
		for kind, content := range attributes(m.Data[nfgenSize:]).all() {
			if kind == unix.NFTA_RULE_USERDATA {
				own = content
				continue
			}
			if kind == unix.NFTA_RULE_EXPRESSIONS {
				kind |= unix.NLA_F_NESTED
			}
			attr(&b, kind, content)
		}
		own = append(slices.Clip(own), tagType, 8)
		attr(&b, unix.NFTA_RULE_USERDATA, hash.Sum(own))
		all[i].Data = b.buffer
	}
}

// udata returns an entry of user data, which is a list of type, length and content.
func udata(all []byte, kind byte) []byte {
	for len(all) >= 2 && len(all) >= 2+int(all[1]) {
		if all[0] == kind {
			return all[2 : 2+all[1]]
		}
		all = all[2+all[1]:]
	}
	return nil
}
