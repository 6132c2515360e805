package sctp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"varco.dev/internal/nettest"
	"varco.dev/internal/nettest/sctp"
)

// nodePort is where the node takes associations for the pod's port.
const nodePort = 30701

// translate makes the node send what comes to nodePort on to the pod, as from itself.
func translate(t *testing.T, node *nettest.Namespace, pod netip.Addr) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(node.FD()))
	if err != nil {
		t.Fatal(err)
	}
	family, nfproto := nftables.TableFamilyIPv4, uint32(2)
	if pod.Is6() {
		family, nfproto = nftables.TableFamilyIPv6, 10
	}
	table := c.AddTable(&nftables.Table{Family: family, Name: "nat"})
	isSCTP := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{sctp.Protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
	before := c.AddChain(&nftables.Chain{
		Name: "before", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: before, Exprs: append(isSCTP[:3:3],
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(nodePort)},
		&expr.Immediate{Register: 1, Data: pod.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: nfproto, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	)})
	after := c.AddChain(&nftables.Chain{
		Name: "after", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: after, Exprs: append(isSCTP[:3:3],
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		// Every port another: the kernel must put the checksums right.
		&expr.Masq{FullyRandom: true, Random: true},
	)})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestThroughNAT opens associations from the client to a node that translates both ends of them.
func TestThroughNAT(t *testing.T) {
	w, node := newWorld(t)
	pod, err := nettest.NewNamespace("pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	v4, v6 := netip.MustParsePrefix("10.244.1.2/32"), netip.MustParsePrefix("fd00:244:0:1::2/128")
	gateway := nettest.Dual{V4: netip.MustParsePrefix("10.244.1.1/32"), V6: netip.MustParsePrefix("fd00:244:0:1::1/128")}
	if err := nettest.AddPod(node, pod, "pod0", nettest.Dual{V4: v4, V6: v6}, gateway); err != nil {
		t.Fatal(err)
	}
	serve(t, pod)
	translate(t, node, v4.Addr())
	translate(t, node, v6.Addr())

	d := &sctp.Dialer{Dial: w.Client.DialContext}
	for i, addr := range nettest.NodeNet.Host(11).Addrs() {
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				message := fmt.Sprintf("%d %s", n, strings.Repeat("x", 3000))
				got, err := ask(t.Context(), d, netip.AddrPortFrom(addr, nodePort), []byte(message))
				from, body, _ := strings.Cut(got, " ")
				if err != nil || body != message {
					t.Errorf("to %s: got %d bytes, %v", addr, len(body), err)
					return
				}
				// Masquerading gives the packets the node's address of the pod's link.
				if seen, err := netip.ParseAddrPort(from); err != nil || seen.Addr() != gateway.Addrs()[i] {
					t.Errorf("to %s: the pod sees %s", addr, from)
				}
			})
		}
		wg.Wait()
	}
}
