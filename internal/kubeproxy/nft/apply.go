package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"varco.dev/internal/kernel"
	"varco.dev/internal/service"
)

// minKernel is the first version that has all that the tables use.
const minKernel = "5.13"

// Bounds of one exchange with the kernel. Time and buffer grow with the number of elements, because a transaction is one
// message to the socket, and sending it returns when the kernel has committed it.
const (
	commitTimeout      = 30 * time.Second
	timePerElement     = 100 * time.Microsecond // measured: 7 on two shared cores
	socketBuffer       = 1 << 20                // bytes
	bufferPerElement   = 128                    // bytes; the largest is 84
	maxBuffer          = 1 << 29                // bytes: 4 million elements; the kernel's own limit is twice that
	elementsPerMessage = 400                    // the elements of one message must fit into 64 KiB
)

// Config is what the fixed rules depend on.
type Config struct {
	Families       []service.Family // required
	MasqueradeMark uint32           // required: the bit of the packet mark that asks for masquerading
	MasqueradeAll  bool             // masquerade everything that goes to a ClusterIP
	ClusterCIDRs   []netip.Prefix   // optional: masquerade what goes to a ClusterIP from outside of these
	NetNS          int              // optional: descriptor of the network namespace to work in; default: own
}

// Netlink is the Kernel that commits over netlink.
type Netlink struct {
	config  Config
	options []nftables.ConnOption
}

// NewNetlink returns a Kernel for the families of the config. It needs CAP_NET_ADMIN when it commits. The options are for
// tests: they take the place of the usual ones.
func NewNetlink(c Config, options ...nftables.ConnOption) *Netlink {
	return &Netlink{config: c, options: options}
}

// Commit implements Kernel. It returns a kernel.UnsupportedError where nftables or a part of it is missing.
func (n *Netlink) Commit(ctx context.Context, tx Transaction) error {
	err := n.run(ctx, len(tx.Delete)+len(tx.Add), func(conn *nftables.Conn, family service.Family) error {
		t := newTable(conn, TableName, family, n.config)
		if tx.Replace {
			t.reset()
			t.addFixed()
		}
		t.mark(tx)
		for _, c := range tx.Classes {
			t.addClass(c)
		}
		for s, elements := range t.own(tx.Delete) {
			t.elements(s, elements, conn.SetDeleteElements)
		}
		for s, elements := range t.own(tx.Add) {
			t.elements(s, elements, conn.SetAddElements)
		}
		return t.err
	})
	if !tx.Replace && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST)) {
		return fmt.Errorf("another program, or another kube-proxy on this node, has changed the tables: %w", err)
	}
	return err
}

// Check asks the kernel whether it can do all that the tables need, without leaving a trace: it makes the tables under
// another name and deletes them in the same transaction.
func (n *Netlink) Check(ctx context.Context) error {
	// A kernel without nf_tables answers a whole transaction with one error, which cannot be told from an answer to its
	// first message. So the first question is a single one.
	conn, err := n.open(0)
	if err == nil {
		_, err = conn.ListTables()
	}
	if errors.Is(err, unix.EINVAL) { // what nfnetlink answers for a subsystem that it does not have
		err = fmt.Errorf("%w: %w", unix.EOPNOTSUPP, err)
	}
	if err != nil {
		return explain(err)
	}
	err = n.run(ctx, 0, func(conn *nftables.Conn, family service.Family) error {
		t := newTable(conn, TableName+"-check", family, n.config)
		t.reset()
		t.addFixed()
		for _, path := range []Path{PathCluster, PathExternal, PathNodePort} {
			t.addClass(ClassOf(path, service.TCP, 1))
		}
		conn.DelTable(t.table)
		return t.err
	})
	if errors.Is(err, unix.ENOENT) { // all that the transaction refers to is in it, but for the kernel's own parts
		feature := "a part of nf_tables (CONFIG_NFT_CT, _HASH, _MASQ, _NAT, _NUMGEN, _REJECT)"
		return &kernel.UnsupportedError{Feature: feature, MinVersion: minKernel, Err: err}
	}
	return err
}

// Cleanup deletes the tables of both families. A family that the kernel does not have has no table.
func (n *Netlink) Cleanup(ctx context.Context) error {
	var errs []error
	for _, family := range []service.Family{service.IPv4, service.IPv6} {
		one := &Netlink{config: Config{Families: []service.Family{family}, NetNS: n.config.NetNS}, options: n.options}
		err := one.run(ctx, 0, func(conn *nftables.Conn, family service.Family) error {
			t := newTable(conn, TableName, family, one.config)
			conn.AddTable(t.table) // deleting what is not there would be an error
			conn.DelTable(t.table)
			return nil
		})
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			errs = append(errs, fmt.Errorf("delete the table of %s: %w", family, err))
		}
	}
	return errors.Join(errs...)
}

// run commits what fill writes for all families as one transaction of about so many elements.
func (n *Netlink) run(ctx context.Context, elements int, fill func(*nftables.Conn, service.Family) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := n.open(elements)
	if err != nil {
		return err
	}
	for _, family := range n.config.Families {
		if err := fill(conn, family); err != nil {
			return err
		}
	}
	return explain(conn.Flush())
}

// open prepares a connection with room and time for a transaction of so many elements.
func (n *Netlink) open(elements int) (*nftables.Conn, error) {
	bound := func(conn *netlink.Conn) error {
		buffer := min(socketBuffer+elements*bufferPerElement, maxBuffer)
		timeout := commitTimeout + time.Duration(elements)*timePerElement
		return errors.Join(
			conn.SetReadBuffer(buffer), // the kernel answers each message
			conn.SetWriteBuffer(buffer),
			conn.SetDeadline(time.Now().Add(timeout)),
		)
	}
	if len(n.options) > 0 {
		return nftables.New(n.options...)
	}
	return nftables.New(nftables.WithNetNSFd(n.config.NetNS), nftables.WithSockOptions(bound))
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
	conn              *nftables.Conn
	family            service.Family
	config            Config
	table             *nftables.Table
	sets              [numSets]*nftables.Set
	verdicts, rejects *nftables.Set
	chains            map[string]*nftables.Chain
	err               error
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
	t.verdicts = t.newVerdictMap("classes", "the chain of each class")
	t.rejects = t.newVerdictMap("rejects", "classes without backends")
	return t
}

// reset drops the table, if there is one, and adds it again.
func (t *table) reset() {
	t.conn.AddTable(t.table)
	t.conn.DelTable(t.table)
	t.conn.AddTable(t.table)
}

// mark makes the transaction fail unless the table has its generation, or gives it to a new one: deleting an element that
// is not there is an error.
func (t *table) mark(tx Transaction) {
	key := encoder{}.number(uint32(tx.Generation >> 32)).number(uint32(tx.Generation))
	mark := []nftables.SetElement{{Key: key}}
	if !tx.Replace {
		t.note(t.conn.SetDeleteElements(t.sets[Generations], mark))
	}
	t.note(t.conn.SetAddElements(t.sets[Generations], mark))
}

// own returns the elements of the table's family by set.
func (t *table) own(elements []Element) map[Set][]nftables.SetElement {
	out := map[Set][]nftables.SetElement{}
	for _, e := range elements {
		if e.Family == t.family {
			out[e.Set] = append(out[e.Set], nftables.SetElement{Key: []byte(e.Key), Val: []byte(e.Value)})
		}
	}
	return out
}

func (t *table) elements(s Set, elements []nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) {
	for chunk := range slices.Chunk(elements, elementsPerMessage) {
		t.note(do(t.sets[s], chunk))
	}
}

// note remembers the first error, so that what writes messages stays a list of intentions.
func (t *table) note(err error) {
	if t.err == nil {
		t.err = err
	}
}
