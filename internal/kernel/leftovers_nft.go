package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of the removal of chains, of which there may be five for each Service and two for each endpoint.
const (
	leftoverTimeout  = 30 * time.Second // for one exchange with the kernel
	leftoverAttempts = 3                // to read, plan and remove, when another program changes the rules meanwhile
	dumpAttempts     = 5                // to list, when the kernel says that the list changed meanwhile
	leftoverChunk    = 2000             // messages of one transaction, each of 100 bytes or less
	leftoverBuffer   = 4 << 20          // bytes: the kernel answers each message
)

// kubeProxyTable is the table of kube-proxy's nftables mode.
const kubeProxyTable = "kube-proxy"

// removeNFTLeftovers removes the tables of the nftables mode, and the chains of the others that iptables-nft made.
func removeNFTLeftovers(ctx context.Context) (removed []string, err error) {
	families := []struct {
		name   string
		family nftables.TableFamily
	}{{"ip", nftables.TableFamilyIPv4}, {"ip6", nftables.TableFamilyIPv6}}
	var errs []error
	for _, f := range families {
		tables, err := nftTables(ctx, f.family)
		if isMissing(err) {
			continue // without nf_tables, nothing is left in it
		}
		if err != nil {
			return removed, fmt.Errorf("list the tables of family %s: %w", f.name, err)
		}
		for _, table := range tables {
			var lines []string
			switch {
			case table == kubeProxyTable:
				lines, err = removeTable(f.name, f.family)
			case slices.Contains(ownTables, table):
				lines, err = removeChains(ctx, f.name, &nftables.Table{Name: table, Family: f.family})
			default:
				continue
			}
			removed, errs = append(removed, lines...), append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

func removeTable(family string, f nftables.TableFamily) ([]string, error) {
	conn, err := changeNFT()
	if err != nil {
		return nil, err
	}
	conn.DelTable(&nftables.Table{Name: kubeProxyTable, Family: f})
	place := fmt.Sprintf("nftables table %s %s", family, kubeProxyTable)
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("delete %s: %w", place, err)
	}
	return []string{place}, nil
}

// removeChains removes the chains of a table that iptables-nft made. It begins again when another program changes the
// table meanwhile.
func removeChains(ctx context.Context, family string, table *nftables.Table) (removed []string, err error) {
	place := fmt.Sprintf("iptables-nft %s %s", family, table.Name)
	for range leftoverAttempts {
		var t chainTable
		if t, err = readTable(ctx, table); err != nil {
			break
		}
		plan := t.plan()
		if plan.empty() {
			return removed, plan.err(place)
		}
		if err = remove(ctx, table, plan); err == nil {
			return append(removed, plan.line(place)), plan.err(place)
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return removed, fmt.Errorf("remove the chains of kube-proxy from %s: %w", place, err)
}

// remove removes what was planned: first the jumps, at once, so that no packet sees a part of the chains.
func remove(ctx context.Context, table *nftables.Table, r removal) error {
	conn, err := changeNFT()
	if err != nil {
		return err
	}
	for _, j := range r.jumps {
		rule := &nftables.Rule{Table: table, Chain: &nftables.Chain{Name: j.from}, Handle: j.handle}
		if err := conn.DelRule(rule); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	for _, do := range []func(*nftables.Chain){conn.FlushChain, conn.DelChain} {
		for chunk := range slices.Chunk(r.chains, leftoverChunk) {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, c := range chunk {
				do(&nftables.Chain{Table: table, Name: c})
			}
			if err := conn.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func changeNFT() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(conn *netlink.Conn) error {
		return errors.Join(
			conn.SetReadBuffer(leftoverBuffer),
			conn.SetWriteBuffer(leftoverBuffer),
			conn.SetDeadline(time.Now().Add(leftoverTimeout)),
		)
	}))
}
