package kernel_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"varco.dev/internal/kernel"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

var bothFamilies = []service.Family{service.IPv4, service.IPv6}

const (
	natPort  = 53 // UDP to it goes to another address and port
	zonePort = 77 // UDP to it is tracked in zone 7
)

// newTracked returns a namespace that tracks what it sends. Nobody answers there: at most one side of a connection is heard.
func newTracked(t *testing.T) *nettest.Namespace {
	t.Helper()
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := ns.AddBridge("br0"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		if err := ns.AddAddr("br0", netip.MustParsePrefix(p)); err != nil {
			t.Fatal(err)
		}
	}
	track(t, ns)
	return ns
}

// track loads rules that make the kernel track connections, in zones and with destination NAT for some of them.
func track(t *testing.T, ns *nettest.Namespace) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyINet})
	chain := func(name string, kind nftables.ChainType, p *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Table: table, Name: name, Type: kind, Hooknum: nftables.ChainHookOutput, Priority: p})
	}
	rule := func(c *nftables.Chain, e ...expr.Any) { conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: e}) }
	udpTo := func(port uint16, then ...expr.Any) []expr.Any {
		return append([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		}, then...)
	}
	rule(chain("raw", nftables.ChainTypeFilter, nftables.ChainPriorityRaw), udpTo(zonePort,
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint16(7)},
		&expr.Ct{Key: expr.CtKeyZONE, Register: 1, SourceRegister: true})...)
	rule(chain("nat", nftables.ChainTypeNAT, nftables.ChainPriorityNATDest), udpTo(natPort,
		&expr.Immediate{Register: 1, Data: []byte{192, 0, 2, 9}},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(5353)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2})...)
	rule(chain("filter", nftables.ChainTypeFilter, nftables.ChainPriorityFilter), &expr.Ct{Key: expr.CtKeySTATE, Register: 1})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// send sends a first packet from a port that is the same for each protocol.
func send(t *testing.T, ns *nettest.Namespace, protocol service.Protocol, to string) {
	t.Helper()
	var err error
	switch addr := netip.MustParseAddrPort(to); protocol {
	case service.UDP:
		err = sendUDP(ns, addr)
	case service.TCP:
		err = sendSYN(ns, addr)
	case service.SCTP:
		err = sendINIT(ns, addr)
	}
	if err != nil {
		t.Fatalf("send %s to %s: %v", protocol, to, err)
	}
}

func sendUDP(ns *nettest.Namespace, to netip.AddrPort) error {
	c, err := ns.ListenPacket("udp", ":4000")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(to))
	return err
}

// sendSYN begins a connection that nobody answers and gives up at once.
func sendSYN(ns *nettest.Namespace, to netip.AddrPort) error {
	return ns.Do(func() error {
		domain, from := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: 4000})
		peer := unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port())})
		if to.Addr().Is6() {
			domain, from = unix.AF_INET6, &unix.SockaddrInet6{Port: 4000}
			peer = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		} else {
			peer.(*unix.SockaddrInet4).Addr = to.Addr().As4()
		}
		s, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := unix.Bind(s, from); err != nil {
			return err
		}
		if err := unix.Connect(s, peer); !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect: %w", err)
		}
		return nil
	})
}

// sendINIT sends the first chunk of an SCTP association (RFC 9260, section 3.3.2) without an SCTP socket.
func sendINIT(ns *nettest.Namespace, to netip.AddrPort) error {
	chunk := []byte{1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1}
	header := binary.BigEndian.AppendUint16(nil, 4000)
	header = binary.BigEndian.AppendUint16(header, to.Port())
	header = append(header, make([]byte, 8)...) // tag; checksum, which is not looked at where the packet begins
	network := map[bool]string{true: "ip4:132", false: "ip6:132"}[to.Addr().Is4()]
	c, err := ns.ListenPacket(network, "")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo(append(header, chunk...), &net.IPAddr{IP: to.Addr().AsSlice()})
	return err
}

func flows(t *testing.T, ct *kernel.Conntrack, protocols ...service.Protocol) (out []string) {
	t.Helper()
	err := ct.Walk(t.Context(), bothFamilies, protocols, func(f kernel.Flow) error {
		if slices.Contains([]service.Protocol{service.TCP, service.UDP, service.SCTP}, f.Protocol) { // not IGMP and the like
			out = append(out, describe(f))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func describe(f kernel.Flow) string {
	s := fmt.Sprintf("%s %s %s>%s", f.Protocol, f.Family, f.Source, f.Dest)
	if f.ReplySource != f.Dest {
		s += " via " + f.ReplySource.String()
	}
	if f.DestNAT {
		s += " nat"
	}
	if f.Zone != 0 {
		s += fmt.Sprintf(" zone %d", f.Zone)
	}
	if f.HalfOpen() {
		s += " half-open"
	}
	return s
}

func TestConntrackFlows(t *testing.T) {
	ns := newTracked(t)
	ct := kernel.NewConntrack(ns.FD())
	for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
		send(t, ns, p, "192.0.2.2:80")
		send(t, ns, p, "[2001:db8::2]:80")
	}
	send(t, ns, service.UDP, fmt.Sprintf("192.0.2.3:%d", natPort))
	send(t, ns, service.UDP, fmt.Sprintf("192.0.2.2:%d", zonePort))

	all := []string{
		"sctp ipv4 192.0.2.1:4000>192.0.2.2:80 half-open",
		"sctp ipv6 [2001:db8::1]:4000>[2001:db8::2]:80 half-open",
		"tcp ipv4 192.0.2.1:4000>192.0.2.2:80 half-open",
		"tcp ipv6 [2001:db8::1]:4000>[2001:db8::2]:80 half-open",
		"udp ipv4 192.0.2.1:4000>192.0.2.2:77 zone 7",
		"udp ipv4 192.0.2.1:4000>192.0.2.2:80",
		"udp ipv4 192.0.2.1:4000>192.0.2.3:53 via 192.0.2.9:5353 nat",
		"udp ipv6 [2001:db8::1]:4000>[2001:db8::2]:80",
	}
	if diff := cmp.Diff(all, flows(t, ct)); diff != "" {
		t.Fatalf("all flows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(all[4:], flows(t, ct, service.UDP)); diff != "" {
		t.Errorf("UDP flows (-want +got):\n%s", diff)
	}
	if err := ct.Check(t.Context()); err != nil {
		t.Error(err)
	}

	// The same tuple is another flow in another zone, and stays.
	n, err := ct.Delete(t.Context(), bothFamilies, []service.Protocol{service.UDP}, func(f kernel.Flow) bool {
		return f.Zone == 7 || f.DestNAT && f.ReplySource == netip.MustParseAddrPort("192.0.2.9:5353")
	})
	if err != nil || n != 2 {
		t.Errorf("deleted %d, %v; want 2", n, err)
	}
	rest := slices.Concat(all[:4], all[5:6], all[7:])
	if diff := cmp.Diff(rest, flows(t, ct)); diff != "" {
		t.Errorf("after deletion of two (-want +got):\n%s", diff)
	}
	n, err = ct.Delete(t.Context(), bothFamilies, []service.Protocol{service.TCP, service.SCTP},
		kernel.Flow.HalfOpen)
	if err != nil || n != 4 {
		t.Errorf("deleted %d, %v; want 4", n, err)
	}
	if diff := cmp.Diff([]string{rest[4], rest[5]}, flows(t, ct)); diff != "" {
		t.Errorf("after deletion of those half open (-want +got):\n%s", diff)
	}
}

// TestConntrackMany has more flows than one answer, one window of deletions, or one walk between deletions holds.
func TestConntrackMany(t *testing.T) {
	const many = 5000
	ns := newTracked(t)
	ct := kernel.NewConntrack(ns.FD())
	c, err := ns.ListenPacket("udp4", ":4000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range many {
		if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10000 + i}); err != nil {
			t.Fatal(err)
		}
	}
	n, err := ct.Delete(t.Context(), bothFamilies, nil, func(f kernel.Flow) bool {
		return f.Protocol == service.UDP && f.Dest.Port()%2 == 0
	})
	if err != nil || n != many/2 {
		t.Errorf("deleted %d, %v; want %d", n, err, many/2)
	}
	if got := len(flows(t, ct, service.UDP)); got != many/2 {
		t.Errorf("%d flows are left, want %d", got, many/2)
	}
}

// TestConntrackEnded deletes a flow that has ended, and begun again, since it was listed.
func TestConntrackEnded(t *testing.T) {
	ns := newTracked(t)
	ct := kernel.NewConntrack(ns.FD())
	udp := []service.Protocol{service.UDP}
	all := func(kernel.Flow) bool { return true }
	for name, again := range map[string]bool{"ended": false, "begun again": true} {
		send(t, ns, service.UDP, "192.0.2.2:80")
		var inner int
		n, err := ct.Delete(t.Context(), bothFamilies, udp, func(kernel.Flow) bool {
			var err error
			if inner, err = ct.Delete(t.Context(), bothFamilies, udp, all); err != nil {
				t.Error(err)
			}
			if again {
				send(t, ns, service.UDP, "192.0.2.2:80")
			}
			return true
		})
		if err != nil || n != 0 || inner != 1 {
			t.Errorf("%s: deleted %d, %v and %d meanwhile; want 0 and 1", name, n, err, inner)
		}
		if got := len(flows(t, ct, service.UDP)); (got == 1) != again {
			t.Errorf("%s: %d flows are left", name, got)
		}
	}
}

func TestConntrackContext(t *testing.T) {
	ns := newTracked(t)
	send(t, ns, service.UDP, "192.0.2.2:80")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	stop := fmt.Errorf("stop: %w", unix.EINTR) // not taken for an interruption by the kernel
	err := kernel.NewConntrack(ns.FD()).Walk(ctx, bothFamilies, nil, func(kernel.Flow) error { return stop })
	if !errors.Is(err, stop) || strings.Contains(err.Error(), "times") {
		t.Errorf("walk returned %v, want the visitor's error", err)
	}
	cancel()
	_, err = kernel.NewConntrack(ns.FD()).Delete(ctx, bothFamilies, nil, func(kernel.Flow) bool { return true })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("delete returned %v after the end of its context", err)
	}
}
