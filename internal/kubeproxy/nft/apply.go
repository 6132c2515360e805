package nft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"varco.dev/internal/kernel"
	"varco.dev/internal/service"
)

// minKernel is the first version that has all that the tables use.
const minKernel = "5.13"

// Netlink is the Kernel that commits over netlink. It is safe for concurrent use.
type Netlink struct {
	config Config
	open   func(netns int) (w wire, id uint32, err error)

	mu    sync.Mutex // one exchange with the kernel at a time; guards the fields below
	wire  wire       // nil: to be opened
	batch batch
	own   atomic.Uint32 // id of the wire; read without mu
}

// NewNetlink returns a Kernel for the families of the config. It needs CAP_NET_ADMIN when it commits, and Close at its end.
func NewNetlink(c Config) *Netlink {
	return &Netlink{config: c, open: func(netns int) (wire, uint32, error) {
		s, err := dial(netns)
		if err != nil {
			return nil, 0, err
		}
		return s, s.id(), nil
	}}
}

// Families tells New of which families there are tables.
func (n *Netlink) Families() []service.Family { return n.config.Families }

// Close ends the connection to the kernel. What was committed stays; another commit opens another connection.
func (n *Netlink) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hangUp()
}

// Commit implements Kernel. It returns a kernel.UnsupportedError where nftables or a part of it is missing.
func (n *Netlink) Commit(ctx context.Context, tx Transaction) error {
	err := n.transact(ctx, func(b *batch) error {
		for _, family := range n.config.Families {
			if err := n.writeTable(b, family, tx); err != nil {
				return err
			}
		}
		b.elements(unix.NFT_MSG_DELSETELEM, tx.Delete)
		b.elements(unix.NFT_MSG_NEWSETELEM, tx.Add)
		return nil
	})
	if !tx.Replace && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST)) {
		return fmt.Errorf("another program, or another kube-proxy on this node, has changed the tables: %w", err)
	}
	return err
}

// writeTable writes what a transaction does to the table of a family beside elements of Services.
//
// An element of Generations gives a new table its generation, or makes the transaction fail unless the table has it: adding
// an element that is there changes nothing, but with another value it is an error.
func (n *Netlink) writeTable(b *batch, family service.Family, tx Transaction) error {
	marks := []Element{markOf(family, keyGeneration, uint64(tx.Generation))}
	if tx.Replace {
		fixed, err := n.fixed(family)
		if err != nil {
			return err
		}
		b.copy(fixed.messages)
		marks = append(marks, markOf(family, keyLayout, fixed.hash))
	}
	b.elements(unix.NFT_MSG_NEWSETELEM, marks)
	if len(tx.Classes)+len(tx.Unused)+len(tx.Chains)+len(tx.Lengths) == 0 {
		return nil
	}
	changed, err := n.record(family, TableName, func(t *table) { t.change(tx) })
	b.copy(changed)
	return err
}

// Keys of the set Generations.
const (
	keyGeneration = iota
	keyLayout
)

// markOf returns one of the elements of the set Generations.
func markOf(family service.Family, key uint32, value uint64) Element {
	e := encoder{}.number(uint32(value >> 32)).number(uint32(value))
	return Element{Place{family, Generations, string(encoder{}.number(key))}, string(e)}
}

// Check asks the kernel whether it can do all that the tables need, without leaving a trace: it makes the tables under
// another name and deletes them in the same transaction.
func (n *Netlink) Check(ctx context.Context) error {
	// A kernel without nf_tables answers a whole transaction with one error, which cannot be told from an answer to its
	// first message. So the first question is a single one.
	if _, err := n.currentGeneration(ctx); err != nil {
		if errors.Is(err, unix.EINVAL) { // what nfnetlink answers for a subsystem that it does not have
			err = fmt.Errorf("%w: %w", unix.EOPNOTSUPP, err)
		}
		return explain(err)
	}
	err := n.commitRecorded(ctx, n.config.Families, TableName+"-check", func(t *table) {
		t.reset()
		t.addFixed()
		for _, c := range checkedClasses() {
			t.addClass(c)
		}
		t.conn.DelTable(t.table)
	})
	if errors.Is(err, unix.ENOENT) { // all that the transaction refers to is in it, but for the kernel's own parts
		feature := "a part of nf_tables (CONFIG_NFT_CT, _FIB_IPV4, _FIB_IPV6, _HASH, _MASQ, _NAT, _NUMGEN, _REJECT)"
		return &kernel.UnsupportedError{Feature: feature, MinVersion: minKernel, Err: err}
	}
	return err
}

// checkedClasses are such that their chains have every kind of expression.
func checkedClasses() (all []Class) {
	for path := PathCluster; path < numPaths; path++ {
		all = append(all, Class{Path: path, Protocol: service.TCP, Backends: 1, Affinity: 1, Balance: service.HashSourceIP})
	}
	return all
}

// Cleanup deletes the tables of both families. A family that the kernel does not have has no table.
func (n *Netlink) Cleanup(ctx context.Context) error {
	var errs []error
	for _, family := range []service.Family{service.IPv4, service.IPv6} {
		err := n.commitRecorded(ctx, []service.Family{family}, TableName, func(t *table) {
			t.conn.AddTable(t.table) // deleting what is not there would be an error
			t.conn.DelTable(t.table)
		})
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			errs = append(errs, fmt.Errorf("delete the table of %s: %w", family, err))
		}
	}
	return errors.Join(errs...)
}

// commitRecorded commits what fill asks for, for some families as one transaction.
func (n *Netlink) commitRecorded(ctx context.Context, families []service.Family, table string, fill func(*table)) error {
	return n.transact(ctx, func(b *batch) error {
		for _, family := range families {
			messages, err := n.record(family, table, fill)
			if err != nil {
				return err
			}
			b.copy(messages)
		}
		return nil
	})
}

// record returns the messages that google/nftables makes for what fill asks for, unsent, because they are to be part of
// one transaction with those of a batch. The library has no other door for that than the one meant for tests; behind it
// is no more than a function in the place of the socket.
func (n *Netlink) record(family service.Family, name string, fill func(*table)) ([]netlink.Message, error) {
	var recorded []netlink.Message
	conn, err := nftables.New(nftables.WithTestDial(func(sent []netlink.Message) ([]netlink.Message, error) {
		if len(sent) > 2 {
			recorded = sent[1 : len(sent)-1] // without the messages that open and close the transaction
		}
		return nil, io.EOF // no answer
	}))
	if err != nil {
		return nil, err
	}
	t := newTable(conn, name, family, n.config)
	fill(t)
	if err := errors.Join(t.err, conn.Flush()); err != nil {
		return nil, fmt.Errorf("write the rules of %s: %w", family, err)
	}
	tag(recorded)
	return recorded, nil
}

// explain makes one error of the many that the kernel gives for a transaction, and says what to do where it lacks nf_tables
// or does not let us.
func explain(err error) error {
	err = firstOf(err)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return &kernel.UnsupportedError{Feature: "nf_tables (CONFIG_NF_TABLES)", MinVersion: minKernel, Err: err}
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: changing nftables needs root, or the capability NET_ADMIN", err)
	}
	return err
}

// firstOf returns the first of joined errors: what fails after it mostly follows from it.
func firstOf(err error) error {
	all := leaves(err)
	if len(all) < 2 {
		return err
	}
	return fmt.Errorf("%w (and %d more)", all[0], len(all)-1)
}

// leaves returns the errors that were joined, however deep.
func leaves(err error) (all []error) {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if joined, ok := e.(interface{ Unwrap() []error }); ok {
			for _, one := range joined.Unwrap() {
				all = append(all, leaves(one)...)
			}
			return all
		}
	}
	return []error{err}
}

// table writes the messages for the table of one family into the connection's batch.
type table struct {
	conn                                    *nftables.Conn
	family                                  service.Family
	config                                  Config
	table                                   *nftables.Table
	sets                                    [numSets]*nftables.Set
	verdicts, shortcuts, refusals, affinity *nftables.Set
	chains                                  map[string]*nftables.Chain
	err                                     error
}

func newTable(conn *nftables.Conn, name string, family service.Family, c Config) *table {
	t := &table{conn: conn, family: family, config: c, chains: map[string]*nftables.Chain{}}
	t.table = &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
	if family == service.IPv6 {
		t.table.Family = nftables.TableFamilyIPv6
	}
	for s := range numSets {
		t.sets[s] = t.newSet(s)
	}
	t.verdicts = t.newVerdictMap(verdictClasses, "the chain of each class", class)
	t.shortcuts = t.newVerdictMap(verdictShortcuts, "the chain of each class of shortcuts", class)
	t.refusals = t.newVerdictMap("refusals", "what clients of frontends without backends are told", refusal)
	t.affinity = t.newAffinity()
	t.numberSets()
	return t
}

// numberSets gives each set a number, by which rules of the same transaction refer to it. The library would count on from
// the last table, and the hash of the same rules would differ each time.
func (t *table) numberSets() {
	for i, s := range append(t.sets[:], t.verdicts, t.shortcuts, t.refusals, t.affinity) {
		s.ID = uint32(i + 1)
	}
}

// reset drops the table, if there is one, and adds it again.
func (t *table) reset() {
	t.conn.AddTable(t.table)
	t.conn.DelTable(t.table)
	t.conn.AddTable(t.table)
}

// change adds and deletes the chains and rules that come and go with Services.
func (t *table) change(tx Transaction) {
	for _, c := range tx.Chains {
		t.deleteClass(c)
	}
	for _, c := range tx.Classes {
		t.addClass(c)
	}
	for _, c := range tx.Unused {
		t.retireClass(c)
	}
	for _, l := range tx.Lengths {
		if l.Family == t.family {
			t.addLength(l)
		}
	}
}

// note remembers the first error, so that what writes messages stays a list of intentions.
func (t *table) note(err error) {
	if t.err == nil {
		t.err = err
	}
}
