package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// refused is an error of the kernel for one message of a transaction.
type refused struct {
	sequence uint32
	err      error
}

// transact commits what fill writes. It is done when it returns: the kernel works off a transaction while it is sent.
func (n *Netlink) transact(ctx context.Context, fill func(*batch) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.dial(); err != nil {
		return err
	}
	defer n.batch.shrink()
	n.batch.begin()
	if err := fill(&n.batch); err != nil {
		return err
	}
	refusals, err := n.exchange(n.batch.end())
	if err != nil { // what is still on its way must not be taken for an answer to the next transaction
		return errors.Join(err, n.hangUp())
	}
	return n.first(refusals)
}

func (n *Netlink) dial() error {
	if n.wire != nil {
		return nil
	}
	w, id, err := n.open(n.config.NetNS)
	if err != nil {
		return explain(err)
	}
	n.wire = w
	n.own.Store(id)
	return nil
}

func (n *Netlink) hangUp() error {
	if n.wire == nil {
		return nil
	}
	err := n.wire.close()
	n.wire = nil
	return err
}

// exchange sends the batch and returns what the kernel refuses; without any, it has committed.
func (n *Netlink) exchange(last uint32) (all []refused, err error) {
	if err := n.wire.send(n.batch.buffer); err != nil {
		return nil, err
	}
	done := false
	for {
		datagram, err := n.wire.receive(!done && len(all) == 0)
		if err != nil || datagram == nil {
			return all, err
		}
		for m := range messages(datagram) {
			if m.kind != unix.NLMSG_ERROR {
				continue
			}
			if errno := m.errno(); errno == 0 {
				done = done || m.sequence == last
			} else if text := m.words(); text != "" {
				all = append(all, refused{m.sequence, fmt.Errorf("%s: %w", text, errno)})
			} else {
				all = append(all, refused{m.sequence, errno})
			}
		}
	}
}

// first makes one error of all, that of the first message: what fails after it mostly follows from it.
func (n *Netlink) first(all []refused) error {
	if len(all) == 0 {
		return nil
	}
	first := slices.MinFunc(all, func(a, b refused) int { return cmp.Compare(a.sequence, b.sequence) })
	err := fmt.Errorf("%s: %w", n.batch.describe(first.sequence), first.err)
	if len(all) > 1 {
		err = fmt.Errorf("%w (and %d more)", err, len(all)-1)
	}
	return explain(err)
}

// answers sends the request in the batch and hands over each message of the answer, which is one message, or many up to
// the end of a dump or an acknowledgement. What visit gets is valid during its call.
func (n *Netlink) answers(many bool, visit func(message)) error {
	err := n.wire.send(n.batch.buffer)
	for done, interrupted := false, false; err == nil && !done; {
		var datagram []byte
		if datagram, err = n.wire.receive(true); err != nil {
			break
		}
		for m := range messages(datagram) {
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.kind == unix.NLMSG_ERROR || m.kind == unix.NLMSG_DONE:
				if errno := m.errno(); errno != 0 {
					return errno
				}
				done = true
			case len(m.body) >= nfgenSize:
				visit(m)
				done = !many
			}
		}
		if done && interrupted {
			return errInterrupted
		}
	}
	if err != nil { // the rest of the answer must not be taken for one to the next request
		return errors.Join(err, n.hangUp())
	}
	return nil
}
