package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// Bounds of watching.
const (
	watchBuffer      = 4 << 20                // bytes: the notifications of 10,000 changes that others make at once
	watchPause       = 100 * time.Millisecond // between two reports at least; also for what comes with the first one
	minWatchRetry    = 100 * time.Millisecond // after a socket that failed; it doubles
	maxWatchFailures = 10                     // in a row, after which watching is given up
	forever          = 24 * time.Hour
)

// Watch calls changed when another program has changed our tables, and when it may have done so unseen, with a sentence
// that says what and who. Calls come one after the other, at most one in 100 ms, and should not block. What this Netlink
// commits, and what packets do to the map of session affinity, is not reported.
//
// It returns nil when the context ends, and an error if there is no watching here.
func (n *Netlink) Watch(ctx context.Context, changed func(reason string)) error {
	failures := 0
	for {
		w := &watcher{Netlink: n, changed: changed}
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if failures++; w.worked {
			failures = 1
		}
		if failures >= maxWatchFailures || errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("watch nftables: %w", err)
		}
		if w.worked {
			changed(fmt.Sprintf("unknown, because watching was interrupted: %v", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(minWatchRetry << (failures - 1)):
		}
	}
}

// watcher gathers what happens to our tables until it is time to report it.
type watcher struct {
	*Netlink
	changed func(reason string)
	socket  *socket
	ignored uint32 // the sender whose notifications the kernel does not deliver
	worked  bool   // the socket was open

	what  string    // the first change that is not reported
	who   string    // the program that made it
	due   time.Time // when to report
	spoke time.Time // when it was reported last
}

func (w *watcher) watch(ctx context.Context) error {
	if err := w.openSocket(); err != nil {
		return err
	}
	return w.listen(ctx)
}

// listen reports what comes until the context ends, or the socket fails; then it closes it.
func (w *watcher) listen(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { w.socket.close() })()
	defer w.socket.close()
	w.worked = true
	for {
		wait := time.Now().Add(forever)
		if w.what != "" {
			wait = w.due
		}
		datagram, err := w.socket.receiveUntil(wait)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.see("unknown, because there were more changes than could be kept")
		case err != nil:
			return err
		}
		for m := range messages(datagram) {
			w.message(m)
		}
		w.report(time.Now())
	}
}

func (w *watcher) openSocket() error {
	w.mu.Lock()
	err := w.dial() // to know its id
	w.mu.Unlock()
	if err != nil {
		return err
	}
	if w.socket, err = dial(w.config.NetNS); err != nil {
		return explain(err)
	}
	err = errors.Join(w.socket.conn.SetReadBuffer(watchBuffer), w.ignore(w.own.Load()), w.socket.conn.JoinGroup(unix.NFNLGRP_NFTABLES))
	if err != nil {
		return errors.Join(explain(err), w.socket.close())
	}
	return nil
}

// ignore has the kernel drop notifications of what a sender does, so that the own transactions do not fill the buffer.
func (w *watcher) ignore(sender uint32) error {
	const offset = 12 // of nlmsg_pid in struct nlmsghdr; a datagram has the messages of one sender
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offset, Size: 4}, // as in a packet: the highest byte first
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, sender)), SkipTrue: 1},
		bpf.RetConstant{Val: ^uint32(0)},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	w.ignored = sender
	return w.socket.conn.SetBPF(filter)
}

// message takes note of a notification. The last one of each transaction tells whose it was.
func (w *watcher) message(m message) {
	own := w.own.Load()
	if own != w.ignored {
		// The commits go through another socket now. Should this fail, their notifications are skipped here.
		_ = w.ignore(own)
	}
	if m.sender == own || len(m.body) < nfgenSize || m.kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return
	}
	family, body := m.body[0], attributes(m.body[nfgenSize:])
	if m.kind == kindOf(unix.NFT_MSG_NEWGEN) {
		if w.what != "" && w.who == "" {
			w.who = program(body)
			w.due = w.spoke.Add(watchPause)
		}
		return
	}
	ours := slices.ContainsFunc(w.config.Families, func(f service.Family) bool { return netFamily(f) == family })
	if ours && text0(body.find(1)) == TableName { // the first attribute of all kinds but NEWGEN
		w.see(changeText(m.kind&0xff, family, body))
	}
}

// see notes a change; the first one since the last report is what is told.
func (w *watcher) see(what string) {
	if w.what == "" {
		w.what, w.due = what, time.Now().Add(watchPause)
	}
}

// report tells what was noted when it is time.
func (w *watcher) report(now time.Time) {
	if w.what == "" || now.Before(w.due) {
		return
	}
	reason := w.what
	if w.who != "" {
		reason += ", by " + w.who
	}
	w.what, w.who, w.spoke = "", "", now
	w.changed(reason)
}

// program returns the name and number of the process that a NEWGEN message tells.
func program(body attributes) string {
	name, pid := text0(body.find(unix.NFTA_GEN_PROC_NAME)), body.find(unix.NFTA_GEN_PROC_PID)
	if name == "" || len(pid) != 4 {
		return ""
	}
	return fmt.Sprintf("%s (process %d)", name, binary.BigEndian.Uint32(pid))
}

// changeText says what happened to which part of a table.
func changeText(kind uint16, family byte, body attributes) string {
	table := familyName(family) + " " + TableName
	second := text0(body.find(2)) // the name of a chain or set, but for tables
	switch kind {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		return fmt.Sprintf("table %s %s", table, verb(kind, unix.NFT_MSG_NEWTABLE))
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		return fmt.Sprintf("chain of %s %s", table, verb(kind, unix.NFT_MSG_NEWCHAIN))
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return fmt.Sprintf("rule of chain %s %s %s", table, second, verb(kind, unix.NFT_MSG_NEWRULE))
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		return fmt.Sprintf("elements of set %s %s %s", table, second, verb(kind, unix.NFT_MSG_NEWSETELEM))
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		return fmt.Sprintf("set %s %s %s", table, second, verb(kind, unix.NFT_MSG_NEWSET))
	}
	return fmt.Sprintf("something in table %s changed", table)
}

func verb(kind, added uint16) string {
	if kind == added {
		return "added or changed"
	}
	return "deleted"
}
