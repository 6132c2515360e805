package kubeproxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// script is a source of random changes over few names and addresses, so that Services claim each other's addresses,
// share backends, and objects come and go in any order.
type script struct {
	*rand.Rand
	services map[service.Name]*service.Service
	slices   map[service.Name]*service.Slice
}

func newScript(seed uint64) *script {
	return &script{rand.New(rand.NewPCG(seed, 1)), map[service.Name]*service.Service{}, map[service.Name]*service.Slice{}}
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
	switch r.IntN(10) {
	case 0, 1, 2:
		s := &service.Service{Name: r.name(5), ClusterIPs: r.addrs(96, 6), ExternalIPs: r.addrs(96, 8), LoadBalancerIPs: r.addrs(98, 3)}
		for i := range r.IntN(3) {
			p := service.ServicePort{Name: fmt.Sprint(i), Protocol: []service.Protocol{service.TCP, service.UDP}[r.IntN(2)], Port: uint16(80 + r.IntN(2))}
			if r.IntN(2) == 0 {
				p.NodePort = uint16(30000 + r.IntN(3))
			}
			s.Ports = append(s.Ports, p)
		}
		r.services[s.Name] = s
		t.SetService(s)
	case 3:
		n := r.name(5)
		delete(r.services, n)
		t.DeleteService(n)
	case 4, 5, 6, 7:
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
		r.slices[s.Name] = s
		t.SetSlice(s)
	case 8:
		n := r.name(8)
		delete(r.slices, n)
		t.DeleteSlice(n)
	case 9:
		t.SetNodeAddrs(r.addrs(240, 2))
	}
}

// fresh computes from nothing what the script's objects ask for.
func (r *script) fresh(nodeAddrs []netip.Addr) service.Changes {
	t := service.NewTable("node-1")
	for _, s := range r.slices {
		t.SetSlice(s)
	}
	for _, s := range r.services {
		t.SetService(s)
	}
	t.SetNodeAddrs(nodeAddrs)
	return t.Changes()
}

// TestIncrementalEqualsFresh changes objects at random and compares, after each step, the desired state with one computed
// from nothing, and the kernel's elements with those of a data plane started from nothing.
func TestIncrementalEqualsFresh(t *testing.T) {
	for seed := range uint64(60) {
		r, table := newScript(seed), service.NewTable("node-1")
		kernel := &nfttest.Kernel{}
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
			want := r.fresh(changes.NodeAddrs)
			if diff := cmp.Diff(string(describe(want)), string(describe(table.All()))); diff != "" {
				t.Fatalf("seed %d step %d: desired state (-fresh +incremental)\n%s", seed, step, diff)
			}
			if diff := cmp.Diff(meaning(t, want), withoutIDs(kernel.Dump())); diff != "" {
				t.Fatalf("seed %d step %d: kernel (-fresh +incremental)\n%s", seed, step, diff)
			}
		}
	}
}

// meaning returns what a kernel would hold that was told the whole state.
func meaning(t *testing.T, all service.Changes) string {
	kernel := &nfttest.Kernel{}
	if err := nft.New(kernel).Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	return withoutIDs(kernel.Dump())
}

// TestLoopUnderFaults drives the loop against a kernel that fails one commit in ten and now and then loses its tables. In
// the end the kernel must hold what the objects ask for.
func TestLoopUnderFaults(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r, start := newScript(seed), make(chan struct{})
			kernel := &nfttest.Kernel{}
			faults := rand.New(rand.NewPCG(seed, 2))
			kernel.Fail = func(nft.Transaction) error {
				if faults.IntN(10) == 0 {
					return fmt.Errorf("on purpose: %w", unix.ENOBUFS)
				}
				return nil
			}
			loop := reconcile.New(reconcile.Config{
				Table: service.NewTable("node-1"), Plane: nft.New(kernel), Start: start, Log: slog.New(slog.DiscardHandler),
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
			var nodeAddrs []netip.Addr
			for step := range 200 {
				if step%50 == 49 {
					kernel.Lose()
				}
				loop.Update(func(table *service.Table) {
					r.step(table)
					nodeAddrs = table.NodeAddrs()
				})
				if r.IntN(3) == 0 {
					synctest.Wait()
				}
			}
			waitApplied(t, loop)
			if diff := cmp.Diff(meaning(t, r.fresh(nodeAddrs)), withoutIDs(kernel.Dump())); diff != "" {
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

// ids are the numbers of Service ports, which depend on history. The endpoints of a port follow its number.
var ids = regexp.MustCompile(`(services|nodeports) (.*) \. (\d+)$`)

// withoutIDs replaces the ids in a dump by the first frontend that points to them, and drops what depends on history:
// classes, which are kept after use, and which backend has which slot. That slots have no gaps is kept.
func withoutIDs(dump string) string {
	names := map[string]string{}
	var lines []string
	for line := range strings.Lines(dump) {
		line = strings.TrimSpace(line)
		if m := ids.FindStringSubmatch(line); m != nil {
			family, _, _ := strings.Cut(line, " ")
			key := family + " endpoints " + m[3] + " . "
			if names[key] == "" {
				names[key] = m[2]
			}
			line = strings.TrimSuffix(line, m[3]) + names[key]
		}
		if !strings.HasPrefix(line, "class ") {
			lines = append(lines, line)
		}
	}
	var slots []string
	for i, line := range lines {
		for key, name := range names {
			if rest, ok := strings.CutPrefix(line, key); ok {
				slot, backend, _ := strings.Cut(rest, " : ")
				lines[i] = strings.Fields(key)[0] + " endpoint of " + name + " : " + backend
				slots = append(slots, strings.Fields(key)[0]+" slot of "+name+" : "+slot)
			}
		}
	}
	lines = append(lines, slots...)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
