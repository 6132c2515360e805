package kubeproxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"varco.dev/internal/kernel"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// TestRealFlows has a client that keeps sending UDP from one port to a frontend, while the endpoint behind it is exchanged:
// the kernel goes on sending to the old one, until the cleaner has run.
func TestRealFlows(t *testing.T) {
	nettest.NeedRoot(t)
	ns := newNode(t)
	old, new := listenAt(t, ns, "192.0.2.1:5001"), listenAt(t, ns, "192.0.2.1:5002")
	client, err := ns.ListenPacket("udp4", "192.0.2.1:4000")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	send := func() {
		t.Helper()
		if _, err := client.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(vip))); err != nil {
			t.Fatal(err)
		}
	}

	walks := make(chan int, 8)
	c := newCleaner(cleanerConfig{
		Flows: kernel.NewConntrack(ns.FD()), Families: []service.Family{service.IPv4}, Log: slog.New(slog.DiscardHandler),
		Report: func(_ service.Family, _ time.Duration, deleted int) { walks <- deleted },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()

	natTo(t, ns, 5001)
	send()
	receive(t, old)
	before, after := servicePort("dns", service.UDP, []string{vip}, "192.0.2.1:5001"), servicePort("dns", service.UDP, []string{vip}, "192.0.2.1:5002")
	c.applied(service.Changes{Ports: []service.Change{{New: before}}}, true)
	if n := <-walks; n != 0 {
		t.Errorf("deleted %d flows to an endpoint that serves", n)
	}

	natTo(t, ns, 5002)
	send()
	receive(t, old) // what this test is about
	c.applied(service.Changes{Ports: []service.Change{{Old: before, New: after}}}, false)
	if n := <-walks; n != 1 {
		t.Errorf("deleted %d flows, want the one to the old endpoint", n)
	}
	send()
	receive(t, new)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func newNode(t *testing.T) *nettest.Namespace {
	t.Helper()
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := ns.AddBridge("br0"); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddAddr("br0", netip.MustParsePrefix("192.0.2.1/24")); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddRoute(netip.MustParsePrefix("10.96.0.0/16"), netip.Addr{}, "br0"); err != nil {
		t.Fatal(err)
	}
	return ns
}

// natTo sends new flows of UDP to a port of the node, in the place of nft's rules.
func natTo(t *testing.T, ns *nettest.Namespace, port uint16) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyIPv4})
	conn.DelTable(table)
	table = conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "nat", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Immediate{Register: 1, Data: []byte{192, 0, 2, 1}},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func listenAt(t *testing.T, ns *nettest.Namespace, address string) net.PacketConn {
	t.Helper()
	c, err := ns.ListenPacket("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receive(t *testing.T, at net.PacketConn) {
	t.Helper()
	if err := at.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := at.ReadFrom(make([]byte, 16)); err != nil {
		t.Fatalf("the packet did not come to %s: %v", at.LocalAddr(), err)
	}
}
