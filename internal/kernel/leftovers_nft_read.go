package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nftTables returns the names of the tables of a family.
func nftTables(ctx context.Context, f nftables.TableFamily) (names []string, err error) {
	err = dumpNFT(ctx, unix.NFT_MSG_GETTABLE, f, nil, func() { names = nil }, func(b []byte) {
		for kind, value := range attributes(b) {
			if kind == unix.NFTA_TABLE_NAME {
				names = append(names, text(value))
			}
		}
	})
	return names, err
}

// readTable reads the chains of a table and its jumps. Rules are not read by package nftables, because it returns an error
// for a whole chain if it does not understand a part of one rule, and others may have written any.
func readTable(ctx context.Context, table *nftables.Table) (chainTable, error) {
	t := chainTable{name: table.Name}
	err := dumpNFT(ctx, unix.NFT_MSG_GETCHAIN, table.Family, nil, func() { t.chains = nil }, func(b []byte) {
		var of, name string
		for kind, value := range attributes(b) {
			switch kind {
			case unix.NFTA_CHAIN_TABLE:
				of = text(value)
			case unix.NFTA_CHAIN_NAME:
				name = text(value)
			}
		}
		if of == table.Name {
			t.chains = append(t.chains, name)
		}
	})
	if err != nil {
		return t, fmt.Errorf("list chains: %w", err)
	}
	only := appendAttribute(nil, unix.NFTA_RULE_TABLE, append([]byte(table.Name), 0))
	err = dumpNFT(ctx, unix.NFT_MSG_GETRULE, table.Family, only, func() { t.jumps = nil }, func(b []byte) {
		if j := parseRule(b); j.to != "" {
			t.jumps = append(t.jumps, j)
		}
	})
	if err != nil {
		return t, fmt.Errorf("list rules: %w", err)
	}
	return t, nil
}

// parseRule returns where a rule is and where it leads, if it does; a rule has one verdict at most.
func parseRule(b []byte) (j jump) {
	for kind, value := range attributes(b) {
		switch kind {
		case unix.NFTA_RULE_CHAIN:
			j.from = text(value)
		case unix.NFTA_RULE_HANDLE:
			if len(value) == 8 {
				j.handle = binary.BigEndian.Uint64(value)
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, e := range attributes(value) {
				j.to = max(j.to, parseJump(e))
			}
		}
	}
	return j
}

// parseJump returns the chain that an expression jumps or goes to, "" for other expressions.
func parseJump(expression []byte) string {
	var name string
	var data []byte
	for kind, value := range attributes(expression) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			name = text(value)
		case unix.NFTA_EXPR_DATA:
			data = value
		}
	}
	if name != "immediate" {
		return ""
	}
	verdict := find(find(data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
	return text(find(verdict, unix.NFTA_VERDICT_CHAIN))
}

func find(b []byte, wanted uint16) []byte {
	for kind, value := range attributes(b) {
		if kind == wanted {
			return value
		}
	}
	return nil
}

func text(b []byte) string { return strings.TrimSuffix(string(b), "\x00") }

// dumpNFT visits each object of a kind. It calls restart and begins again if the rules change meanwhile.
func dumpNFT(ctx context.Context, kind uint16, f nftables.TableFamily, filter []byte, restart func(), visit func([]byte)) (err error) {
	for range dumpAttempts {
		restart()
		err = dumpNFTOnce(ctx, netlink.Message{
			Header: netlink.Header{
				Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
				Flags: netlink.Request | netlink.Dump,
			},
			Data: append([]byte{byte(f), unix.NFNETLINK_V0, 0, 0}, filter...),
		}, visit)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return err
}

func dumpNFTOnce(ctx context.Context, request netlink.Message, visit func([]byte)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(leftoverTimeout)); err != nil {
		return err
	}
	if _, err := conn.Send(request); err != nil {
		return err
	}
	interrupted := false
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			return err
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		visit(body(m.Data))
	}
	if interrupted {
		return unix.EINTR
	}
	return nil
}
