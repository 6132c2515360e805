package kubeproxy_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// copyOfProxy is a loop with a data plane that watches its tables.
type copyOfProxy struct {
	*reconcile.Loop
	commits atomic.Int64
}

// countedCommits counts what is committed.
type countedCommits struct {
	nft.Kernel
	n *atomic.Int64
}

func (k countedCommits) Commit(ctx context.Context, tx nft.Transaction) error {
	k.n.Add(1)
	return k.Kernel.Commit(ctx, tx)
}

func (c *copyOfProxy) run(ctx context.Context, t *testing.T, group *sync.WaitGroup, ns *nettest.Namespace) {
	start := make(chan struct{})
	close(start)
	kernel := nft.NewNetlink(nft.Config{
		Families: []service.Family{service.IPv4, service.IPv6}, MasqueradeMark: 1 << 14, NetNS: ns.FD(),
	})
	c.Loop = reconcile.New(reconcile.Config{
		Table: service.NewTable("node-1"), Plane: nft.New(countedCommits{kernel, &c.commits}), Start: start, Log: slog.New(slog.DiscardHandler),
	})
	group.Go(func() {
		defer kernel.Close()
		if err := c.Loop.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	group.Go(func() {
		if err := kernel.Watch(ctx, c.Repair); err != nil {
			t.Error(err)
		}
	})
}

// TestTwoCopiesConverge has two copies of the proxy on one node, as while a DaemonSet is updated with surge. They see the
// same objects, one a little later than the other. In the end both must be content with the same tables, and rest.
func TestTwoCopiesConverge(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var first, second copyOfProxy
	for _, c := range []*copyOfProxy{&first, &second} {
		c.run(ctx, t, &group, ns)
	}
	defer group.Wait()
	defer cancel()
	ahead, behind := newScript(7), newScript(7)
	for range 100 {
		first.Update(func(table *service.Table) { ahead.step(table) })
		time.Sleep(time.Duration(ahead.IntN(4)) * time.Millisecond) // what makes one copy later than the other
		second.Update(func(table *service.Table) { behind.step(table) })
		behind.IntN(4) // so that both draw the same numbers
	}
	kernel := nft.NewNetlink(nft.Config{Families: []service.Family{service.IPv4, service.IPv6}, MasqueradeMark: 1 << 14, NetNS: ns.FD()})
	defer kernel.Close()
	want := meaning(t, ahead.fresh(), func(k nft.Kernel) nft.Kernel { return k })
	rested := func() bool {
		before := first.commits.Load() + second.commits.Load()
		time.Sleep(time.Second) // ten times the pause before a repair: long enough for a copy that is not content
		return before == first.commits.Load()+second.commits.Load()
	}
	for deadline := time.Now().Add(time.Minute); !rested(); {
		if time.Now().After(deadline) {
			t.Fatal("the copies still undo each other's work")
		}
	}
	if diff := cmp.Diff(want, held(t, kernel)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, c := range []*copyOfProxy{&first, &second} {
		if h := c.Health(); h.Err != nil || !h.PendingFrom.IsZero() {
			t.Errorf("got health %+v", h)
		}
	}
}

// TestForeignFlushIsRepaired flushes the whole ruleset, as starting a firewall does, and one set.
func TestForeignFlushIsRepaired(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	var proxy copyOfProxy
	proxy.run(ctx, t, &group, ns)
	r := newScript(3)
	for range 50 {
		proxy.Update(func(table *service.Table) { r.step(table) })
	}
	kernel := nft.NewNetlink(nft.Config{Families: []service.Family{service.IPv4, service.IPv6}, MasqueradeMark: 1 << 14, NetNS: ns.FD()})
	defer kernel.Close()
	want := meaning(t, r.fresh(), func(k nft.Kernel) nft.Kernel { return k })
	if !strings.Contains(want, "cluster-ips") {
		t.Fatal("no ClusterIPs to flush")
	}
	right := func() bool {
		c, err := kernel.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c.Sound && held(t, kernel) == want
	}
	within := func(limit time.Duration) {
		t.Helper()
		start := time.Now()
		for !right() {
			if time.Since(start) > limit {
				t.Fatalf("not right after %s", limit)
			}
			time.Sleep(time.Millisecond) // until the proxy has done it
		}
		t.Logf("right after %s", time.Since(start))
	}
	within(10 * time.Second)
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // until the proxy watches: nothing tells
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	within(10 * time.Second)
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		conn.FlushSet(&nftables.Set{Table: &nftables.Table{Name: nft.TableName, Family: family}, Name: nft.ClusterIPs.String()})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	within(10 * time.Second)
}
