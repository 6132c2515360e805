package nft

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// addClass adds the chain of a class: it marks what is to be masqueraded, chooses a slot, and sends the connection to the
// backend in it.
//
// Each look-up sees the elements of its own moment. Where the number of backends shrinks between the first and the last, a
// slot may be gone that was drawn: the first one then serves, which is there as long as any is.
func (t *table) addClass(c Class) {
	name := c.String()
	t.chain(name)
	t.addPath(name, c.Path)
	if c.Backends > 0 {
		if c.Affinity > 0 {
			t.addAffinity(name, c)
		}
		t.addChoice(name, c, c.Balance, c.Backends)
		t.addChoice(name, c, service.Random, 1)
	}
	t.note(t.conn.SetAddElements(t.verdictsOf(c), []nftables.SetElement{verdictElement(c)}))
}

// retireClass makes the class one that nothing leads to.
func (t *table) retireClass(c Class) {
	t.note(t.conn.SetDeleteElements(t.verdictsOf(c), []nftables.SetElement{verdictElement(c)}))
}

// deleteClass deletes the chain of a class that was retired.
func (t *table) deleteClass(c Class) {
	t.conn.DelChain(&nftables.Chain{Table: t.table, Name: c.String()})
}

// verdictsOf returns the map that leads to the chain of a class. The kernel allows no loops, be they ones that no packet
// takes: chains that lead to shortcuts must not be in the same map as the chains of these.
func (t *table) verdictsOf(c Class) *nftables.Set {
	if c.Path == PathExternalShortcut || c.Path == PathNodePortShortcut {
		return t.shortcuts
	}
	return t.verdicts
}

func verdictElement(c Class) nftables.SetElement {
	return nftables.SetElement{
		Key:         encoder{}.class(c),
		VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: c.String()},
	}
}

// addPath adds what the connections of a path have in common.
func (t *table) addPath(chain string, p Path) {
	if counter, ok := p.counter(); ok && t.config.Counters >= CountConnections {
		t.rule(chain, t.key(counter), in(t.sets[counter]))
	}
	switch p {
	case PathCluster:
		t.rule(chain, jump(chainMarkCluster))
	case PathExternal, PathNodePort:
		t.rule(chain, jump(chainMark))
	case PathExternalLocal:
		t.rule(chain, jump(chainShortcuts))
	case PathNodePortLocal:
		t.rule(chain, jump(chainNodeShorts))
	}
}

// counter returns the set that counts the connections of a path. Those that take a shortcut have been counted before.
func (p Path) counter() (Set, bool) {
	switch p.set() {
	case Services:
		return Connections, true
	case NodePorts:
		return NodePortConnections, true
	}
	return 0, false
}

// addChoice adds the rule that sends a connection to one of n slots.
func (t *table) addChoice(chain string, c Class, b service.Balance, n int) {
	t.commented(chain, choiceComment(b, n), t.choose(c, b, n), t.toBackend())
}

func choiceComment(b service.Balance, n int) string {
	how := map[service.Balance]string{
		service.Random: "a random slot", service.Maglev: "the slot of a hash of both ends", service.HashSourceIP: "the slot of a hash of saddr",
	}[b]
	if b == service.Maglev {
		n = MaglevSlots
	}
	return fmt.Sprintf("id of the Service port, and %s below %d", how, n)
}

// choose puts the id of the frontend's backends, and one of n slots, into regID and regSlot.
func (t *table) choose(c Class, b service.Balance, n int) []expr.Any {
	s := c.Path.set()
	return slices.Concat(protocol(c.Protocol), t.draw(b, n), t.key(s), get(t.sets[s], regID))
}

// The registers of affinity. The token of a backend stands behind its id, and so does a client.
const (
	regChosen     = unix.NFT_REG32_00
	regRemembered = unix.NFT_REG32_03
	regBackend    = unix.NFT_REG32_06
	regClient     = unix.NFT_REG32_08
)

// addAffinity adds the rules that send a client where its last connection went. The first one remembers the token of the
// backend that it chooses, unless one is remembered already, whose time begins anew: the kernel does both in one step, so
// that connections opened at the same time go to the same backend. If what is remembered is no backend any more, the
// second rule puts another one in its place. If there is no room to remember anything, the rules that follow serve.
func (t *table) addAffinity(chain string, c Class) {
	timeout := time.Duration(c.Affinity) * time.Second
	t.commented(chain, "the backend that the client had last, or a new one",
		t.choose(c, c.Balance, c.Backends), t.chosen(), t.client(),
		t.remember(unix.NFT_DYNSET_OP_UPDATE, timeout),
		disguise(regRemembered+1), disguise(regRemembered+2),
		lookup(t.affinity, t.clientKey(), regRemembered),
		copyID(regChosen, regRemembered, false),
		t.toRemembered(regRemembered))
	t.commented(chain, "a new backend for a client whose last one is gone",
		t.choose(c, c.Balance, c.Backends), t.chosen(), t.client(),
		t.remember(dynsetDelete, 0),
		t.remember(unix.NFT_DYNSET_OP_ADD, timeout),
		t.toRemembered(regChosen))
}

// dynsetDelete is NFT_DYNSET_OP_DELETE of linux/netfilter/nf_tables.h.
const dynsetDelete = 2

// chosen puts the id and the token of the backend in the slot into the registers.
func (t *table) chosen() []expr.Any {
	return slices.Concat(
		disguise(regChosen+1), disguise(regChosen+2),
		lookup(t.sets[Tokens], regID, regChosen),
		copyID(regID, regChosen, false))
}

// toRemembered changes the destination to the backend with the id and token in registers.
func (t *table) toRemembered(reg uint32) []expr.Any {
	return append(lookup(t.sets[Backends], reg, regBackend), t.dnat(regBackend)...)
}

// client loads what a client is remembered by: the even id, and its address.
//
// Of IPv6, a hash of both takes the place of the address's first 4 bytes, unseen by nft: 1.0.6 aborts when it loads a rule
// that adds a key of more than 16 bytes to a map. Two clients that are taken for one are so improbable, and would have no
// more than each other's backend as long as that is one of their own.
func (t *table) client() []expr.Any {
	e := append(copyID(regChosen, regClient, true), t.loadAddr(regClient+1, true)...)
	if t.addrRegs() == 1 {
		return e
	}
	hash := &expr.Hash{
		SourceRegister: regClient, Length: 4 + 16, DestRegister: regDraw, Modulus: math.MaxUint32, Seed: hashSeed, Type: expr.HashTypeJenkins,
	}
	return slices.Concat(e, []expr.Any{hash}, disguise(regSpare), copyRegs(regSpare, regClient, 2))
}

// clientKey is the register in which it begins.
func (t *table) clientKey() uint32 {
	if t.addrRegs() == 1 {
		return regClient
	}
	return regClient + 1
}

// copyID copies an id, or, if even, the one that both sets of backends of the Service port share.
func copyID(from, into uint32, even bool) []expr.Any {
	mask := ^uint32(0)
	if even {
		mask--
	}
	return []expr.Any{&expr.Bitwise{SourceRegister: from, DestRegister: into, Len: 4, Mask: number(mask), Xor: number(0)}}
}

// remember writes the chosen backend behind the client, or whatever the operation does with it.
func (t *table) remember(operation uint32, timeout time.Duration) []expr.Any {
	return []expr.Any{&expr.Dynset{
		SrcRegKey: t.clientKey(), SrcRegData: regChosen, SetName: t.affinity.Name, SetID: t.affinity.ID, Operation: operation, Timeout: timeout,
	}}
}
