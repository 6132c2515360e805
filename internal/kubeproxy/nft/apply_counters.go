package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// Counting tells New what is counted.
func (n *Netlink) Counting() Counters { return n.config.Counters }

// Counters returns what was counted for each frontend; CountedAt says where in the result. It is empty if nothing is
// counted. A count starts at 0 when its frontend, or the tables, are made anew. Counters is safe for concurrent use, and
// does not hold up commits: it has a connection of its own, for as long as it takes.
func (n *Netlink) Counters(ctx context.Context) (counts map[Place]Count, err error) {
	if n.config.Counters == CountNothing {
		return nil, nil
	}
	own := &Netlink{config: n.config, open: n.open}
	if err := own.dial(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	counts = map[Place]Count{}
	for _, family := range n.config.Families {
		for s := Connections; s.counts(); s++ {
			if err := own.readCounts(ctx, family, s, counts); err != nil {
				return nil, fmt.Errorf("read the counters in %s %s: %w", tableFamily(family), s, err)
			}
		}
	}
	return counts, nil
}

// readCounts reads the counters of a set. It starts over if a commit came in between; counters only grow, so that what
// was read before does no harm.
func (n *Netlink) readCounts(ctx context.Context, family service.Family, s Set, counts map[Place]Count) error {
	if n.config.Counters < CountAll && (s == Traffic || s == NodePortTraffic) {
		return nil
	}
	for attempt := range readAttempts {
		r := &reader{Netlink: n, family: family, lenient: attempt == readAttempts-1}
		err := r.ask(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, s.String(), func(body attributes) {
			for _, e := range body.find(unix.NFTA_SET_ELEM_LIST_ELEMENTS).all() {
				enter(family, s, e, counts)
			}
		})
		if !errors.Is(err, errInterrupted) {
			return explain(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// enter puts down what an element of a set has counted.
func enter(family service.Family, s Set, element attributes, counts map[Place]Count) {
	key, _ := keyAndValue(element)
	counter := element.find(unix.NFTA_SET_ELEM_EXPR).find(unix.NFTA_EXPR_DATA)
	packets, bytes := counted(counter.find(unix.NFTA_COUNTER_PACKETS)), counted(counter.find(unix.NFTA_COUNTER_BYTES))
	at := Place{Family: family, Set: Services, Key: string(key)}
	if s == NodePortConnections || s == NodePortTraffic {
		at.Set = NodePorts
	}
	c := counts[at]
	if s == Traffic || s == NodePortTraffic {
		c.Packets, c.Bytes = packets, bytes
	} else {
		c.Connections = packets
	}
	counts[at] = c
}

func counted(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
