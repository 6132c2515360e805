package nft_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/service"
)

func TestAffinity(t *testing.T) {
	n := newNode(t, nft.Config{Detector: podNets()})
	each(t, func(t *testing.T, f service.Family, proto service.Protocol) {
		n.t = t
		// Policy Local for what comes from outside makes a second set of the same backends: the affinity is one for both.
		with := func(i int, backends ...service.Backend) *service.Port {
			return sample(f, proto, i, func(p *service.Port) {
				p.Cluster, p.Local, p.External, p.Affinity = backends, backends, service.PolicyLocal, time.Hour
			})
		}
		both := with(1, backend(f, 0), backend(f, 1))
		ports := []*service.Port{both}
		for i := range 15 {
			ports = append(ports, with(2+i, both.Cluster...))
		}
		n.serve(nodeAddrs(), ports...)
		server := func(from, to string) string {
			s, _, _ := strings.Cut(n.ask(from, proto.String(), to), " ")
			return s
		}
		first := server("client", atPort(at(f, "96", 1), 80))
		if !strings.HasPrefix(first, "pod-") {
			t.Fatalf("got %s", first)
		}
		for range 6 {
			for _, to := range []string{atPort(at(f, "96", 1), 80), atPort(nodeAddr(f), 30001), atPort(at(f, "98", 1), 80)} {
				if got := server("client", to); got != first {
					t.Fatalf("%s is served by %s, and before by %s", to, got, first)
				}
			}
		}
		others := 0
		for i := range 15 { // other Services choose for themselves: not one in 30,000 times all choose alike
			if server("client", atPort(at(f, "96", 2+i), 80)) != first {
				others++
			}
		}
		if others == 0 {
			t.Errorf("16 Services chose %s", first)
		}
		gone := 0
		if first == "pod-b" {
			gone = 1
		}
		one := with(1, backend(f, 1-gone))
		n.update(both, one)
		for range 4 {
			if got := server("client", atPort(at(f, "96", 1), 80)); got == first || !strings.HasPrefix(got, "pod-") {
				t.Fatalf("served by %s, which is gone", got)
			}
		}
		n.update(one, both) // the client stays where it is
		for range 6 {
			if got := server("client", atPort(at(f, "96", 1), 80)); got == first {
				t.Fatalf("back at %s", got)
			}
		}
	})
}

// TestAffinityEnds has an affinity of one second, which each connection begins anew.
func TestAffinityEnds(t *testing.T) {
	t.Parallel()
	n := newNode(t, nft.Config{Detector: podNets(), AffinitySize: 4})
	f := service.IPv6
	n.serve(nodeAddrs(), sample(f, service.UDP, 1, func(p *service.Port) {
		p.Cluster, p.Affinity = []service.Backend{backend(f, 0), backend(f, 1)}, time.Second
	}))
	to, before, changes, since := atPort(at(f, "96", 1), 80), "", 0, time.Now()
	for time.Since(since) < 2500*time.Millisecond {
		got := n.ask("client", "udp", to)
		if before != "" && got != before {
			t.Fatalf("from %s to %s", before, got)
		}
		before = got
		time.Sleep(100 * time.Millisecond) // connections shorter apart than the affinity
	}
	for range 12 {
		time.Sleep(1100 * time.Millisecond) // the affinity ends
		if got := n.ask("client", "udp", to); got != before {
			changes++
			break
		}
	}
	if changes == 0 {
		t.Error("still the same backend after it has ended 12 times")
	}
}

// TestAffinityWithoutRoom has more clients than are remembered: they are served all the same.
func TestAffinityWithoutRoom(t *testing.T) {
	n := newNode(t, nft.Config{Detector: podNets(), AffinitySize: 1})
	f := service.IPv4
	n.serve(nodeAddrs(), sample(f, service.TCP, 1, func(p *service.Port) {
		p.Cluster, p.Affinity = []service.Backend{backend(f, 0), backend(f, 1)}, time.Hour
	}))
	to := atPort(at(f, "96", 1), 80)
	n.ask("client", "tcp", to)
	n.want("client@10.9.0.3", "tcp", to, "pod-a from 10.244.1.1", "pod-b from 10.244.1.1")
}

func TestSourceRanges(t *testing.T) {
	t.Parallel()
	n := newNode(t, nft.Config{Detector: podNets()})
	each(t, func(t *testing.T, f service.Family, proto service.Protocol) {
		n.t = t
		ports := []*service.Port{nil}
		for i, sources := range [][]netip.Prefix{
			{netip.PrefixFrom(clientAddr(f, 1), clientAddr(f, 1).BitLen()), netip.MustParsePrefix("172.16.0.0/12")},
			{netip.PrefixFrom(clientAddr(f, 1), 13)},
			{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
			nil,
		} {
			ports = append(ports, sample(f, proto, 1+i, func(p *service.Port) {
				p.Cluster, p.Sources = []service.Backend{backend(f, 0)}, sources
			}))
		}
		n.serve(nodeAddrs(), ports[1:]...)
		masked := n.ask("client", proto.String(), atPort(nodeAddr(f), 30003)) // NodePorts are open to all
		if !strings.HasPrefix(masked, "pod-a from") {
			t.Fatalf("NodePort: %s", masked)
		}
		for _, c := range []struct {
			from string
			i    int
			want string
		}{
			{"client", 1, masked},
			{"client@" + clientAddr(f, 2).String(), 1, "nothing"},
			{"client", 2, masked},
			{"client@" + clientAddr(f, 2).String(), 2, masked},
			{"client", 3, "nothing"},
			{"client", 4, masked},
		} {
			n.want(c.from, proto.String(), atPort(at(f, "97", c.i), 80), c.want)
			n.want(c.from, proto.String(), atPort(at(f, "98", c.i), 80), masked) // so are external IPs
		}
	})
}

func TestDetectorsByInterface(t *testing.T) {
	for _, d := range []nft.Detector{{Bridge: "pod0"}, {InterfacePrefix: "pod"}} {
		n := newNode(t, nft.Config{Detector: d, LocalReject: true})
		each(t, func(t *testing.T, f service.Family, proto service.Protocol) {
			n.t = t
			n.serve(nodeAddrs(), sample(f, proto, 1, func(p *service.Port) { p.Cluster = []service.Backend{backend(f, 1)} }),
				sample(f, proto, 2, func(p *service.Port) { // whose endpoint is elsewhere
					p.Cluster, p.External = []service.Backend{backend(f, 1)}, service.PolicyLocal
				}))
			pod := backend(f, 0).Addr.Addr().String()
			n.want("pod-a", proto.String(), atPort(at(f, "96", 1), 80), "pod-b from "+pod)
			n.want("pod-a", proto.String(), atPort(at(f, "98", 2), 80), "pod-b from "+pod)
			if got := n.ask("client", proto.String(), atPort(at(f, "96", 1), 80)); got == "pod-b from "+clientAddr(f, 1).String() {
				t.Errorf("the client is seen: %s", got)
			}
			n.want("client", proto.String(), atPort(at(f, "98", 2), 80), "refused")
		})
	}
}

// TestNodePortsAtAllAddresses has NodePorts at whatever is a local address, and then at loopback addresses too.
func TestNodePortsAtAllAddresses(t *testing.T) {
	n := newNode(t, nft.Config{Detector: podNets()})
	each(t, func(t *testing.T, f service.Family, proto service.Protocol) {
		n.t = t
		p := sample(f, proto, 1, func(p *service.Port) { p.Cluster = []service.Backend{backend(f, 0)} })
		loopback := netip.MustParseAddr("127.0.0.1")
		if f == service.IPv6 {
			loopback = netip.IPv6Loopback()
		}
		n.serve([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, p)
		masked := n.ask("client", proto.String(), atPort(nodeAddr(f), 30001))
		if !strings.HasPrefix(masked, "pod-a from") {
			t.Fatalf("NodePort: %s", masked)
		}
		n.want("node", proto.String(), atPort(nodeAddr(f), 30001), masked)
		n.want("node", proto.String(), atPort(loopback, 30001), "refused")
		n.want("client", proto.String(), atPort(clientAddr(f, 2), 30001), "refused") // no address of the node

		n.must(n.hosts["node"].Sysctl("net.ipv4.conf.all.route_localnet", "1"))
		n.serve([]netip.Addr{loopback}, p)
		n.want("client", proto.String(), atPort(nodeAddr(f), 30001), "refused")
		if f == service.IPv4 {
			n.want("node", proto.String(), atPort(loopback, 30001), masked)
		}
	})
}

func TestCounters(t *testing.T) {
	n := newNode(t, nft.Config{Detector: podNets(), Counters: nft.CountAll})
	each(t, func(t *testing.T, f service.Family, proto service.Protocol) {
		n.t = t
		p := sample(f, proto, 1, func(p *service.Port) { p.Cluster = []service.Backend{backend(f, 0), backend(f, 1)} })
		local := sample(f, proto, 2, func(p *service.Port) {
			p.Cluster, p.External = []service.Backend{backend(f, 0)}, service.PolicyLocal
		})
		n.serve(nil)
		n.serve(nodeAddrs(), p, local)
		for range 3 {
			n.ask("client", proto.String(), atPort(at(f, "96", 1), 80))
			n.ask("pod-a", proto.String(), atPort(at(f, "98", 2), 80))
		}
		n.ask("node", proto.String(), atPort(at(f, "96", 1), 80))
		n.ask("client", proto.String(), atPort(nodeAddr(f), 30001))
		for range 3 { // a change of backends keeps the counts
			more := sample(f, proto, 1, func(p *service.Port) { p.Cluster = []service.Backend{backend(f, 0)} })
			n.update(p, more)
			n.update(more, p)
		}
		counts, err := n.kernel.Counters(t.Context())
		n.must(err)
		for i, want := range []uint64{4, 1, 0, 0} {
			got := counts[nft.CountedAt(p.Key, p.Frontends[i])]
			if got.Connections != want || (got.Packets > 0) != (want > 0) {
				t.Errorf("%s: got %+v, want %d connections", p.Frontends[i].Kind, got, want)
			}
			// A question and its answer over UDP are two packets, over TCP and its end at least nine.
			least, size := 2*want, uint64(28+5)
			if proto == service.TCP {
				least, size = 8*want, 40
			}
			if got.Packets < least || got.Packets > 12*want || got.Bytes < got.Packets*size {
				t.Errorf("%s: got %+v for %d connections", p.Frontends[i].Kind, got, want)
			}
		}
		if got := counts[nft.CountedAt(local.Key, local.Frontends[3])]; got.Connections != 3 {
			t.Errorf("by shortcut: got %+v, want 3 connections", got)
		}
	})
}
