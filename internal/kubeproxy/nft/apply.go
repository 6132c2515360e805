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

// Bounds of one exchange with the kernel.
const (
	commitTimeout      = 30 * time.Second
	socketBuffer       = 64 << 20 // bytes; a transaction must fit into the socket's buffer as a whole
	elementsPerMessage = 400      // the elements of one message must fit into 64 KiB
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
	config Config
	dial   []nftables.ConnOption
}

// NewNetlink returns a Kernel for the families of the config. It needs CAP_NET_ADMIN when it commits. Connections are opened
// with the given options, by default to the network namespace of the config with buffers and a deadline of their own.
func NewNetlink(c Config, options ...nftables.ConnOption) *Netlink {
	if len(options) == 0 {
		options = []nftables.ConnOption{nftables.WithNetNSFd(c.NetNS), nftables.WithSockOptions(bound)}
	}
	return &Netlink{config: c, dial: options}
}

// bound makes a socket take the largest transaction, and give up on a kernel that does not answer.
func bound(conn *netlink.Conn) error {
	return errors.Join(
		conn.SetReadBuffer(socketBuffer),
		conn.SetWriteBuffer(socketBuffer),
		conn.SetDeadline(time.Now().Add(commitTimeout)),
	)
}

// Commit implements Kernel. It returns a kernel.UnsupportedError where nftables or a part of it is missing.
func (n *Netlink) Commit(ctx context.Context, tx Transaction) error {
	return n.run(ctx, TableName, func(t *table) {
		if tx.Replace {
			t.reset()
			t.addFixed()
		}
		for _, c := range tx.Classes {
			t.addClass(c)
		}
		for s, elements := range t.own(tx.Delete) {
			t.elements(s, elements, t.conn.SetDeleteElements)
		}
		for s, elements := range t.own(tx.Add) {
			t.elements(s, elements, t.conn.SetAddElements)
		}
	})
}

// Check asks the kernel whether it can do all that the tables need, without leaving a trace: it makes the tables under
// another name and deletes them in the same transaction.
func (n *Netlink) Check(ctx context.Context) error {
	err := n.run(ctx, TableName+"-check", func(t *table) {
		t.reset()
		t.addFixed()
		for _, path := range []Path{PathCluster, PathExternal, PathNodePort} {
			t.addClass(ClassOf(path, 1))
		}
		t.conn.DelTable(t.table)
	})
	if errors.Is(err, unix.ENOENT) { // all that the transaction refers to is in it, but for the kernel's own parts
		feature := "a part of nf_tables (CONFIG_NFT_CT, _HASH, _MASQ, _NAT, _NUMGEN, _REJECT)"
		return &kernel.UnsupportedError{Feature: feature, MinVersion: minKernel, Err: err}
	}
	return err
}

// Cleanup deletes the tables.
func (n *Netlink) Cleanup(ctx context.Context) error {
	return n.run(ctx, TableName, func(t *table) {
		t.conn.AddTable(t.table) // deleting what is not there would be an error
		t.conn.DelTable(t.table)
	})
}

// run commits what fill writes for the tables of all families as one transaction.
func (n *Netlink) run(ctx context.Context, name string, fill func(*table)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := nftables.New(n.dial...)
	if err != nil {
		return err
	}
	for _, family := range n.config.Families {
		t := newTable(conn, name, family, n.config)
		fill(t)
		if t.err != nil {
			return t.err
		}
	}
	return explain(conn.Flush())
}

// explain turns the errors of a kernel without nf_tables, and of one that does not let us, into ones that say what to do.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return &kernel.UnsupportedError{Feature: "nf_tables (CONFIG_NF_TABLES)", MinVersion: minKernel, Err: err}
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: changing nftables needs root, or the capability NET_ADMIN", err)
	}
	return err
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
