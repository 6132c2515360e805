package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/controlplane"
)

// cable is the only interface of each machine except the router and the client.
const cable = "eth0"

// Layout is where the files and machines of the lab are.
func (c *Cluster) Layout() (controlplane.Layout, error) {
	cfg, err := loadConfig(c.dir)
	if err != nil {
		return controlplane.Layout{}, err
	}
	return cfg.layout(0), nil
}

// Cut takes a machine, such as control-plane-1, off the network, as if its cable were pulled. Doing it twice is no error.
func (c *Cluster) Cut(machine string) error {
	return c.inside(machine, func(ns *nettest.Namespace) error {
		if err := ns.Sysctl("net.ipv6.conf."+cable+".keep_addr_on_down", "1"); err != nil {
			return fmt.Errorf("keep the addresses of %s: %w", machine, err)
		}
		return ns.Netlink(func(h *netlink.Handle) error {
			l, err := h.LinkByName(cable)
			if err != nil {
				return err
			}
			return h.LinkSetDown(l)
		})
	})
}

// Plug undoes Cut. Routes to pods come back within ten seconds.
func (c *Cluster) Plug(machine string) error {
	return c.inside(machine, func(ns *nettest.Namespace) error {
		if err := ns.Sysctl("net.ipv6.conf."+cable+".accept_dad", "0"); err != nil {
			return fmt.Errorf("keep the addresses of %s: %w", machine, err)
		}
		if err := ns.LinkUp(cable); err != nil {
			return err
		}
		var errs []error
		for _, router := range nettest.NodeNet.Host(nettest.RouterHost).Addrs() {
			errs = append(errs, ns.AddDefaultRoute(router))
		}
		return errors.Join(errs...)
	})
}

// partitionTable is the nftables table that drops the packets of a partition.
const partitionTable = "lab-partition"

// Partition drops, at one machine, all packets that come from the other: no link goes down and nobody is told. Doing it
// twice is no error.
func (c *Cluster) Partition(machine string, from controlplane.Host) error {
	return c.inside(machine, func(ns *nettest.Namespace) error {
		conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: partitionTable, Family: nftables.TableFamilyINet})
		conn.FlushTable(table)
		policy := nftables.ChainPolicyAccept
		chain := conn.AddChain(&nftables.Chain{
			Table: table, Name: "input", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
			Priority: nftables.ChainPriorityFilter, Policy: &policy,
		})
		for _, a := range from.Addrs {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dropFrom(a)})
		}
		return conn.Flush()
	})
}

// dropFrom drops packets by their source address, which begins at byte 12 of an IPv4 header (RFC 791) and at byte 8 of an
// IPv6 header (RFC 8200).
func dropFrom(a netip.Addr) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(12)
	if a.Is6() {
		family, offset = unix.NFPROTO_IPV6, 8
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(a.BitLen() / 8)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// Heal undoes Partition.
func (c *Cluster) Heal(machine string) error {
	return c.inside(machine, func(ns *nettest.Namespace) error {
		conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
		if err != nil {
			return err
		}
		conn.DelTable(&nftables.Table{Name: partitionTable, Family: nftables.TableFamilyINet})
		return conn.Flush()
	})
}

func (c *Cluster) inside(machine string, do func(*nettest.Namespace) error) error {
	ns, err := c.Namespace(machine)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := do(ns); err != nil {
		return fmt.Errorf("change the network of %s: %w", machine, err)
	}
	return nil
}

// Slow makes a component run for a part of the time only, in periods, until ctx ends; it runs on then.
func (c *Cluster) Slow(ctx context.Context, component string, period time.Duration, part float64) error {
	runs := time.Duration(float64(period) * part)
	// A signal that was asked for and not waited for might come after the last one.
	signal := func(sig unix.Signal) error { return c.Signal(context.WithoutCancel(ctx), component, sig) }
	for ctx.Err() == nil {
		if err := signal(unix.SIGSTOP); err != nil {
			return err
		}
		pause(ctx, period-runs)
		if err := signal(unix.SIGCONT); err != nil {
			return err
		}
		pause(ctx, runs)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
