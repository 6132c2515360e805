package nft

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// TestSlotsAreReadAlikeInBothWays reads sets by a dump, and by asking for their elements, as big ones are.
func TestSlotsAreReadAlikeInBothWays(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var all service.Changes
	for i := range 200 {
		p := &service.Port{Key: service.Key{Service: service.Name{Name: string(rune('a' + i))}, Protocol: service.TCP, Family: service.IPv4}}
		address := func(net byte, j int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, net, byte(i), byte(j)}), 80)
		}
		p.Frontends = []service.Frontend{{Kind: service.ClusterIP, Addr: address(96, 0)}}
		for j := range 1 + i%7 {
			p.Cluster = append(p.Cluster, service.Backend{Addr: address(244, j)})
		}
		if i%2 == 0 {
			p.Affinity = 60e9
		}
		all.Ports = append(all.Ports, service.Change{New: p})
	}
	k := NewNetlink(Config{Families: []service.Family{service.IPv4}, MasqueradeMark: 1, NetNS: ns.FD()})
	defer k.Close()
	if err := New(k).Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for _, s := range []Set{Endpoints, Tokens} {
		var found [2][]Element
		for i, ask := range []bool{false, true} {
			r := &reader{Netlink: k, family: service.IPv4, content: Content{Sound: true}}
			if err := r.readElements(Services); err != nil {
				t.Fatal(err)
			}
			frontends := len(r.content.Elements)
			read := func() error { return r.readElements(s) }
			if slots, _ := r.slotsOf(s); ask {
				read = func() error { return r.readSlots(s, slots) }
			}
			if err := read(); err != nil || !r.content.Sound {
				t.Fatalf("%s: sound %t, error %v", s, r.content.Sound, err)
			}
			found[i] = r.content.Elements[frontends:]
			slices.SortFunc(found[i], Element.Compare)
		}
		if diff := cmp.Diff(found[0], found[1]); diff != "" || len(found[0]) == 0 {
			t.Errorf("%s: %d elements, (-dumped +asked for)\n%s", s, len(found[0]), diff)
		}
		lost := found[0][0]
		if err := k.Commit(t.Context(), Transaction{Generation: generationOf(t, k), Delete: []Element{lost}}); err != nil {
			t.Fatal(err)
		}
		r := &reader{Netlink: k, family: service.IPv4, content: Content{Sound: true}}
		if err := r.readElements(Services); err != nil {
			t.Fatal(err)
		}
		slots, _ := r.slotsOf(s)
		if err := r.readSlots(s, slots); err != nil || r.content.Sound {
			t.Errorf("%s: with an element missing: sound %t, error %v", s, r.content.Sound, err)
		}
	}
}

func generationOf(t *testing.T, k Kernel) Generation {
	t.Helper()
	c, err := k.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Generation
}

// TestFixedPartIsTheSameEachTime matters because its hash tells whether tables are those of this program and Config.
func TestFixedPartIsTheSameEachTime(t *testing.T) {
	for _, family := range []service.Family{service.IPv4, service.IPv6} {
		hashes := map[uint64]bool{}
		for range 50 {
			f, err := NewNetlink(Config{MasqueradeMark: 1, Counters: CountAll}).fixed(family)
			if err != nil {
				t.Fatal(err)
			}
			hashes[f.hash] = true
		}
		other, err := NewNetlink(Config{MasqueradeMark: 2, Counters: CountAll}).fixed(family)
		if err != nil {
			t.Fatal(err)
		}
		if len(hashes) != 1 || hashes[other.hash] {
			t.Errorf("%s: %d hashes of one Config, shared with another: %t", family, len(hashes), hashes[other.hash])
		}
	}
}

func TestParseClass(t *testing.T) {
	for path := PathCluster; path < numPaths; path++ {
		for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
			for _, b := range []service.Balance{service.Random, service.Maglev, service.HashSourceIP} {
				for _, affinity := range []uint32{0, 1, MaxAffinity} {
					c := Class{Path: path, Protocol: p, Backends: 17, Affinity: affinity, Balance: b}
					if b == service.Maglev {
						c.Backends = 1
					}
					if got, ok := parseClass(c.String()); !ok || got != c {
						t.Errorf("%s: got %+v, want %+v", c, got, c)
					}
				}
			}
		}
	}
	for _, name := range []string{"", "mine", "services", "cluster-tcp", "cluster-tcp-x", "cluster-tcp-03", "external-local-tcp-3-affinity-", "cluster-tcp-1-affinity-0"} {
		if c, ok := parseClass(name); ok {
			t.Errorf("%q: got %+v", name, c)
		}
	}
}
