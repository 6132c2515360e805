package kubeproxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/nettest"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// script is a source of random changes over few names and addresses, so that Services claim each other's addresses,
// share backends, and objects come and go in any order.
type script struct {
	*rand.Rand
	services  map[service.Name]*service.Service
	slices    map[service.Name]*service.Slice
	nodeAddrs []netip.Addr
	cidrs     []netip.Prefix
}

func newScript(seed uint64) *script {
	return &script{
		Rand: rand.New(rand.NewPCG(seed, 1)), services: map[service.Name]*service.Service{}, slices: map[service.Name]*service.Slice{},
	}
}

func (r *script) name(n int) service.Name {
	return service.Name{Namespace: "x", Name: fmt.Sprint(r.IntN(n))}
}

func (r *script) addr(family service.Family, net byte, n int) netip.Addr {
	if family == service.IPv4 {
		return netip.AddrFrom4([4]byte{10, net, 0, byte(1 + r.IntN(n))})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: net, 15: byte(1 + r.IntN(n))})
}

func (r *script) addrs(net byte, n int) (out []netip.Addr) {
	for _, f := range []service.Family{service.IPv4, service.IPv6} {
		if r.IntN(3) > 0 {
			out = append(out, r.addr(f, net, n))
		}
	}
	return out
}

// step changes one object in the table and in the script's own memory of what there is.
func (r *script) step(t *service.Table) {
	switch r.IntN(11) {
	case 0, 1, 2:
		s := r.service()
		r.services[s.Name] = s
		t.SetService(s)
	case 3:
		n := r.name(5)
		delete(r.services, n)
		t.DeleteService(n)
	case 4, 5, 6, 7:
		s := r.slice()
		r.slices[s.Name] = s
		t.SetSlice(s)
	case 8:
		n := r.name(8)
		delete(r.slices, n)
		t.DeleteSlice(n)
	case 9:
		r.nodeAddrs = r.addrs(240, 2)
		if r.IntN(4) == 0 {
			r.nodeAddrs = append(r.nodeAddrs, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::"))
		}
		t.SetNodeAddrs(r.nodeAddrs)
	case 10:
		r.cidrs = nil
		for range r.IntN(3) {
			r.cidrs = append(r.cidrs, netip.PrefixFrom(r.addr([]service.Family{service.IPv4, service.IPv6}[r.IntN(2)], 96, 6), 12+8*r.IntN(3)))
		}
		t.SetCIDRs(r.cidrs)
	}
}

func (r *script) service() *service.Service {
	s := &service.Service{Name: r.name(5), ClusterIPs: r.addrs(96, 6), ExternalIPs: r.addrs(96, 8), LoadBalancerIPs: r.addrs(98, 3)}
	for i := range r.IntN(3) {
		p := service.ServicePort{Name: fmt.Sprint(i), Protocol: []service.Protocol{service.TCP, service.UDP}[r.IntN(2)], Port: uint16(80 + r.IntN(2))}
		if r.IntN(2) == 0 {
			p.NodePort = uint16(30000 + r.IntN(3))
		}
		s.Ports = append(s.Ports, p)
	}
	if r.IntN(3) == 0 {
		s.External = service.PolicyLocal
	}
	if r.IntN(5) == 0 {
		s.Internal = service.PolicyLocal
	}
	if r.IntN(3) == 0 {
		s.Affinity = time.Duration(1+r.IntN(2)) * time.Hour
	}
	if r.IntN(4) == 0 {
		s.Balance = service.HashSourceIP
	}
	if r.IntN(4) == 0 {
		s.Weights = []service.Weight{{Node: "node-1", Weight: uint16(2 + r.IntN(3))}}
	}
	for range r.IntN(3) {
		s.Sources = append(s.Sources, netip.PrefixFrom(r.addr(service.IPv4, 172, 4), 16+8*r.IntN(3)).Masked())
	}
	return s
}

func (r *script) slice() *service.Slice {
	s := &service.Slice{Name: r.name(8), Service: r.name(5)}
	for i := range 2 {
		s.Ports = append(s.Ports, service.SlicePort{Name: fmt.Sprint(i), Protocol: service.TCP, Port: 8080})
	}
	for range r.IntN(4) {
		family := []service.Family{service.IPv4, service.IPv6}[r.IntN(2)]
		e := service.Endpoint{Addr: r.addr(family, 244, 6), Node: fmt.Sprintf("node-%d", r.IntN(2)), Ready: r.IntN(3) > 0}
		e.Serving, e.Terminating = e.Ready || r.IntN(2) == 0, !e.Ready && r.IntN(2) == 0
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

// fresh computes from nothing what the script's objects ask for.
func (r *script) fresh() service.Changes {
	t := service.NewTable("node-1")
	for _, s := range r.slices {
		t.SetSlice(s)
	}
	for _, s := range r.services {
		t.SetService(s)
	}
	t.SetNodeAddrs(r.nodeAddrs)
	t.SetCIDRs(r.cidrs)
	return t.Changes()
}

// counted is a kernel for data planes that count everything.
type counted struct{ nft.Kernel }

func (counted) Counting() nft.Counters { return nft.CountAll }

func counting(k nft.Kernel) nft.Kernel { return counted{k} }

// TestIncrementalEqualsFresh changes objects at random and compares, after each step, the desired state with one computed
// from nothing, and the kernel's elements with those of a data plane started from nothing.
func TestIncrementalEqualsFresh(t *testing.T) {
	for seed := range uint64(60) {
		r, table := newScript(seed), service.NewTable("node-1")
		kernel := counted{&nfttest.Kernel{}}
		plane := nft.New(kernel)
		if err := plane.Replace(t.Context(), table.Changes()); err != nil {
			t.Fatal(err)
		}
		for step := range 120 {
			r.step(table)
			changes := table.Changes()
			if err := plane.Update(t.Context(), changes); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			want := r.fresh()
			if diff := cmp.Diff(string(describe(want)), string(describe(table.All()))); diff != "" {
				t.Fatalf("seed %d step %d: desired state (-fresh +incremental)\n%s", seed, step, diff)
			}
			if diff := cmp.Diff(meaning(t, want, counting), held(t, kernel)); diff != "" {
				t.Fatalf("seed %d step %d: kernel (-fresh +incremental)\n%s", seed, step, diff)
			}
		}
	}
}

// TestAdoptionEqualsFresh changes objects at random while elements are damaged at random, and starts data planes on what
// they find: each must have the kernel hold what one started from nothing would, and mostly without replacing the tables.
func TestAdoptionEqualsFresh(t *testing.T) {
	replaced, adopted := 0, 0
	for seed := range uint64(40) {
		r, table := newScript(seed), service.NewTable("node-1")
		fake := &nfttest.Kernel{}
		fake.Fail = func(tx nft.Transaction) error {
			if tx.Replace {
				replaced++
			} else {
				adopted++
			}
			return nil
		}
		kernel := counted{fake}
		plane := nft.New(kernel)
		if err := plane.Replace(t.Context(), table.Changes()); err != nil {
			t.Fatal(err)
		}
		for step := range 80 {
			r.step(table)
			changes, restart := table.Changes(), r.IntN(4)
			switch restart {
			case 0, 1:
				fake.Damage(r.damage)
				fallthrough
			case 2:
				plane = nft.New(kernel)
				changes = table.All()
				if err := plane.Replace(t.Context(), changes); err != nil {
					t.Fatalf("seed %d step %d: replace: %v", seed, step, err)
				}
			default:
				if err := plane.Update(t.Context(), changes); err != nil {
					t.Fatalf("seed %d step %d: update: %v", seed, step, err)
				}
			}
			if diff := cmp.Diff(meaning(t, r.fresh(), counting), held(t, kernel)); diff != "" {
				t.Fatalf("seed %d step %d, restart %d: (-fresh +adopted)\n%s", seed, step, restart, diff)
			}
		}
	}
	if replaced > adopted/10 {
		t.Errorf("%d transactions replaced the tables, %d did not", replaced, adopted)
	}
}

// damage deletes elements, gives them the values of others, and adds some.
func (r *script) damage(elements map[nft.Place]string) {
	places := slices.SortedFunc(maps.Keys(elements), func(a, b nft.Place) int {
		return nft.Element{Place: a}.Compare(nft.Element{Place: b})
	})
	for i, p := range places {
		if i == 0 || p.Set != places[i-1].Set || p.Family != places[i-1].Family {
			continue
		}
		switch r.IntN(12) {
		case 0:
			delete(elements, p)
		case 1:
			if value, ok := elements[places[i-1]]; ok {
				elements[p] = value
			}
		case 2:
			key := []byte(p.Key)
			key[r.IntN(len(key))] ^= byte(1 + r.IntN(3))
			elements[nft.Place{Family: p.Family, Set: p.Set, Key: string(key)}] = elements[p]
		}
	}
}

// meaning returns what a kernel, or one made of it, would hold that was told the whole state.
func meaning(t *testing.T, all service.Changes, made func(nft.Kernel) nft.Kernel) string {
	kernel := made(&nfttest.Kernel{})
	if err := nft.New(kernel).Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	return held(t, kernel)
}

// held returns what a kernel holds, without what depends on history: classes, which are kept after use, the numbers of
// Service ports, and which backend has which slot. That slots have no gaps is kept.
func held(t *testing.T, k nft.Kernel) string {
	t.Helper()
	c, err := k.Read(t.Context())
	if err != nil || !c.Sound {
		t.Fatalf("read: sound %t, error %v", c.Sound, err)
	}
	names := map[string]string{}
	for _, e := range c.Elements {
		if _, points := e.Class(); points {
			frontend, value, _ := strings.Cut(e.String(), " : ")
			family, frontend, _ := strings.Cut(frontend, " ")
			id, err := strconv.Atoi(value[strings.LastIndex(value, " ")+1:])
			if err != nil {
				t.Fatal(err)
			}
			for id, kind := range map[int]string{id &^ 1: " Cluster", id | 1: " Local"} {
				if key := fmt.Sprintf("%s %d", family, id); names[key] == "" {
					names[key] = frontend + kind
				}
			}
		}
	}
	var lines []string
	for _, e := range c.Elements {
		lines = append(lines, nameless(e, names)...)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// nameless writes an element with the id in it replaced by a name.
func nameless(e nft.Element, names map[string]string) []string {
	family, line, _ := strings.Cut(e.String(), " ")
	set, rest, _ := strings.Cut(line, " ")
	name := func(id string) string { return fmt.Sprintf("(%s)", names[family+" "+id]) }
	switch _, points := e.Class(); {
	case points:
		i := strings.LastIndex(rest, " ") + 1
		rest = rest[:i] + name(rest[i:])
	case e.Set == nft.Endpoints || e.Set == nft.Tokens:
		key, backend, _ := strings.Cut(rest, " : ")
		id, slot, _ := strings.Cut(key, " . ")
		prefix := fmt.Sprintf("%s %s %s", family, set, name(id))
		return []string{prefix + " to " + backend, prefix + " slot " + slot}
	case e.Set == nft.Backends:
		id, after, _ := strings.Cut(rest, " . ")
		rest = name(id) + " . " + after
	}
	return []string{fmt.Sprintf("%s %s %s", family, set, rest)}
}

// TestLoopUnderFaults drives the loop against a kernel that fails one commit in ten, and one reading, and now and then
// loses its tables, or has them damaged. In the end the kernel must hold what the objects ask for.
func TestLoopUnderFaults(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r, start := newScript(seed), make(chan struct{})
			kernel := &nfttest.Kernel{}
			faults := rand.New(rand.NewPCG(seed, 2))
			sometimes := func() error {
				if faults.IntN(10) == 0 {
					return fmt.Errorf("on purpose: %w", unix.ENOBUFS)
				}
				return nil
			}
			kernel.Fail, kernel.FailRead = func(nft.Transaction) error { return sometimes() }, sometimes
			loop := reconcile.New(reconcile.Config{
				Table: service.NewTable("node-1"), Plane: nft.New(counted{kernel}), Start: start, Log: slog.New(slog.DiscardHandler),
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- loop.Run(ctx) }()
			loop.Update(func(table *service.Table) { r.step(table) })
			synctest.Wait()
			if kernel.Commits() != 0 {
				t.Fatal("applied before all objects were known")
			}
			close(start)
			for step := range 200 {
				switch step % 50 {
				case 19:
					kernel.Damage(r.damage)
					loop.Repair("damage")
				case 29:
					kernel.Break()
					loop.Repair("a rule was changed")
				case 49:
					kernel.Lose() // which nobody reports
				}
				loop.Update(func(table *service.Table) { r.step(table) })
				time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond) // on the bubble's clock
			}
			loop.Repair("the last loss")
			waitApplied(t, loop)
			if n := kernel.Commits(); n < 50 {
				t.Errorf("only %d commits", n)
			}
			kernel.FailRead = nil
			if diff := cmp.Diff(meaning(t, r.fresh(), counting), held(t, kernel)); diff != "" {
				t.Errorf("seed %d: (-want +got)\n%s", seed, diff)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run returned %v at the end of its context", err)
			}
		})
	}
}

// waitApplied lets the fake clock run until nothing is pending.
func waitApplied(t *testing.T, loop *reconcile.Loop) {
	t.Helper()
	for range 100 {
		time.Sleep(reconcile.DefaultMaxRetry) // on the bubble's clock
		synctest.Wait()
		if h := loop.Health(); h.PendingFrom.IsZero() && h.Err == nil {
			return
		}
	}
	t.Fatalf("never applied: %+v", loop.Health())
}

// TestKernelEqualsModel changes objects at random and compares what the real kernel holds with what it is meant to, over
// restarts and damage.
func TestKernelEqualsModel(t *testing.T) {
	nettest.NeedRoot(t)
	for seed := range uint64(4) {
		ns, err := nettest.NewNamespace("node")
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		netlink := nft.NewNetlink(nft.Config{
			Families: []service.Family{service.IPv4, service.IPv6}, MasqueradeMark: 1 << 14, NetNS: ns.FD(), Counters: nft.CountAll,
		})
		defer netlink.Close()
		kernel := counted{netlink}
		r, table, plane := newScript(seed+100), service.NewTable("node-1"), nft.New(kernel)
		if err := plane.Replace(t.Context(), table.Changes()); err != nil {
			t.Fatal(err)
		}
		for step := range 150 {
			r.step(table)
			changes := table.Changes()
			if r.IntN(5) == 0 {
				plane = nft.New(kernel)
				if err := plane.Replace(t.Context(), table.All()); err != nil {
					t.Fatalf("seed %d step %d: replace: %v", seed, step, err)
				}
			} else if err := plane.Update(t.Context(), changes); err != nil {
				t.Fatalf("seed %d step %d: update: %v", seed, step, err)
			}
			if diff := cmp.Diff(meaning(t, r.fresh(), counting), held(t, kernel)); diff != "" {
				t.Fatalf("seed %d step %d: (-model +kernel)\n%s", seed, step, diff)
			}
		}
	}
}
