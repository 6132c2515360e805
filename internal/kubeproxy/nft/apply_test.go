package nft_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

var families = []service.Family{service.IPv4, service.IPv6}

func namespace(t *testing.T) *nettest.Namespace {
	t.Helper()
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func config(ns *nettest.Namespace) nft.Config {
	return nft.Config{Families: families, MasqueradeMark: 1 << 14, NetNS: ns.FD()}
}

// port returns a Service port number i with n backends, the first of which is local.
func port(family service.Family, i, n int) *service.Port {
	at := func(net byte, i int) netip.Addr {
		if family == service.IPv4 {
			return netip.AddrFrom4([4]byte{10, net, byte(i >> 8), byte(i)})
		}
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: net, 14: byte(i >> 8), 15: byte(i)})
	}
	p := &service.Port{Key: service.Key{
		Service: service.Name{Namespace: "x", Name: fmt.Sprint(i)}, Protocol: service.TCP, Family: family,
	}}
	p.Frontends = []service.Frontend{
		{Kind: service.ClusterIP, Addr: netip.AddrPortFrom(at(96, i), 80)},
		{Kind: service.NodePort, Addr: netip.AddrPortFrom(at(0, 0), uint16(30000+i))},
	}
	for j := range n {
		p.Cluster = append(p.Cluster, service.Backend{Addr: netip.AddrPortFrom(at(244, i*n+j), 8080), Local: j == 0})
	}
	return p
}

// content reads what the kernel holds, as nfttest.Kernel dumps it.
func content(t *testing.T, k nft.Kernel) string {
	t.Helper()
	c, err := k.Read(t.Context())
	if err != nil || !c.Sound {
		t.Fatalf("read: sound %t, error %v", c.Sound, err)
	}
	var lines []string
	for _, e := range c.Elements {
		lines = append(lines, e.String())
	}
	for _, class := range slices.Concat(c.Classes, c.Retired) {
		lines = append(lines, "class "+class.String())
	}
	slices.Sort(lines)
	return strings.Join(append(lines, ""), "\n")
}

// tee commits to both kernels.
type tee struct {
	real *nft.Netlink
	fake *nfttest.Kernel
}

func (k tee) Commit(ctx context.Context, tx nft.Transaction) error {
	return errors.Join(k.real.Commit(ctx, tx), k.fake.Commit(ctx, tx))
}

func (k tee) Read(ctx context.Context) (nft.Content, error) { return k.real.Read(ctx) }

// netlinkKernel returns the real kernel, of the namespace.
func netlinkKernel(t *testing.T, c nft.Config) *nft.Netlink {
	k := nft.NewNetlink(c)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func TestKernelHoldsWhatWasCommitted(t *testing.T) {
	ns, fake := namespace(t), &nfttest.Kernel{}
	kernel := tee{netlinkKernel(t, config(ns)), fake}
	plane := nft.New(kernel)
	same := func(step string) {
		t.Helper()
		if diff := cmp.Diff(fake.Dump(), content(t, kernel)); diff != "" {
			t.Fatalf("%s: (-committed +kernel)\n%s", step, diff)
		}
	}
	node := []netip.Addr{netip.MustParseAddr("10.240.0.11"), netip.MustParseAddr("fd00:240::b")}
	all := service.Changes{NodeAddrs: node}
	for i := range 20 {
		all.Ports = append(all.Ports, service.Change{New: port(families[i%2], i, i%4)})
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"replace nothing", func() error { return plane.Replace(t.Context(), all) }},
		{"replace the same", func() error { return plane.Replace(t.Context(), all) }},
		{"update backends and addresses", func() error {
			return plane.Update(t.Context(), service.Changes{
				Ports: []service.Change{
					{Old: all.Ports[3].New, New: port(families[1], 3, 7)},
					{Old: all.Ports[5].New},
					{New: port(families[0], 300, 2)},
				},
				OldNode: node, NodeAddrs: node[:1],
			})
		}},
		{"replace with less", func() error { return plane.Replace(t.Context(), service.Changes{Ports: all.Ports[:2]}) }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		same(step.name)
	}
}

// TestRefusedTransactionChangesNothing commits one that deletes an element that is there and one that is not.
func TestRefusedTransactionChangesNothing(t *testing.T) {
	ns := namespace(t)
	k := netlinkKernel(t, config(ns))
	p := port(service.IPv4, 1, 2)
	if err := nft.New(k).Replace(t.Context(), service.Changes{Ports: []service.Change{{New: p}}}); err != nil {
		t.Fatal(err)
	}
	before, err := k.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there, notThere := before.Elements[:1], nft.Render(port(service.IPv4, 2, 1), 1, nft.Slots{}, nft.CountNothing)
	err = k.Commit(t.Context(), nft.Transaction{Generation: before.Generation, Delete: slices.Concat(there, notThere)})
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "delete elements of ip ") {
		t.Errorf("got error %v, want ENOENT and what was to be deleted", err)
	}
	after, err := k.Read(t.Context())
	if diff := cmp.Diff(before, after); diff != "" || err != nil {
		t.Errorf("error %v, (-before +after)\n%s", err, diff)
	}
}

func TestCheckAndCleanupLeaveNothing(t *testing.T) {
	ns := namespace(t)
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	conn.AddTable(&nftables.Table{Name: "someone-else", Family: nftables.TableFamilyIPv4})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	k := netlinkKernel(t, config(ns))
	if err := k.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := nft.New(k).Replace(t.Context(), service.Changes{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // cleaning up what is clean is no error
		if err := k.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) != 1 || tables[0].Name != "someone-else" {
		t.Errorf("tables left: %v", tables)
	}
}

// TestOtherGenerationIsRefused commits what would fit if the tables were those that the writer knows.
func TestOtherGenerationIsRefused(t *testing.T) {
	ns := namespace(t)
	k := netlinkKernel(t, config(ns))
	if err := nft.New(k).Replace(t.Context(), service.Changes{}); err != nil {
		t.Fatal(err)
	}
	before, err := k.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	add := nft.RenderNode([]netip.Addr{netip.MustParseAddr("10.240.0.11")})
	if err := k.Commit(t.Context(), nft.Transaction{Generation: before.Generation + 1, Add: add}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("got error %v, want EEXIST", err)
	}
	if after, err := k.Read(t.Context()); err != nil || cmp.Diff(before, after) != "" {
		t.Errorf("error %v, (-before +after)\n%s", err, cmp.Diff(before, after))
	}
	if err := k.Commit(t.Context(), nft.Transaction{Generation: before.Generation, Add: add}); err != nil {
		t.Errorf("of the generation that is there: %v", err)
	}
	if err := k.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.Commit(t.Context(), nft.Transaction{Generation: before.Generation, Add: add}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("without a table: got error %v, want ENOENT", err)
	}
}

// TestTwoWriters has two data planes write the same tables, as while one process is exchanged for another. They number
// Services alike for what they know, but not for what comes: whoever finds the other's work must not write over it.
func TestTwoWriters(t *testing.T) {
	ns := namespace(t)
	kernel := netlinkKernel(t, config(ns))
	one, other := nft.New(kernel), nft.New(netlinkKernel(t, config(ns)))
	all := service.Changes{Ports: []service.Change{{New: port(service.IPv4, 1, 1)}, {New: port(service.IPv4, 2, 1)}}}
	for _, p := range []*nft.Plane{one, other} {
		if err := p.Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	third, fourth := service.Change{New: port(service.IPv4, 3, 1)}, service.Change{New: port(service.IPv4, 4, 1)}
	if err := one.Update(t.Context(), service.Changes{Ports: []service.Change{third}}); err != nil {
		t.Fatal(err)
	}
	before := content(t, kernel)
	if err := other.Update(t.Context(), service.Changes{Ports: []service.Change{fourth}}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("the other one used a number that is taken: got error %v, want EEXIST", err)
	}
	if diff := cmp.Diff(before, content(t, kernel)); diff != "" {
		t.Errorf("(-before +after)\n%s", diff)
	}
	all.Ports = append(all.Ports, third, fourth)
	for _, p := range []*nft.Plane{other, one} {
		if err := p.Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if strings.Count(content(t, kernel), "ip services") != 4 {
			t.Errorf("got\n%s", content(t, kernel))
		}
	}
}

// TestListingCanBeLoadedAgain saves the ruleset with the nft command, as administrators do, and loads it: a file that does
// not load would take the firewall rules in it along. Without nft on the machine nobody can do that.
func TestListingCanBeLoadedAgain(t *testing.T) {
	ns := namespace(t)
	path, err := exec.LookPath("nft")
	if err != nil {
		t.Log("no nft command here")
		return
	}
	c := config(ns)
	c.Detector.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}
	all := service.Changes{NodeAddrs: []netip.Addr{netip.MustParseAddr("10.240.0.11"), netip.MustParseAddr("fd00:240::b")}}
	for i := range 12 {
		all.Ports = append(all.Ports, service.Change{New: port(families[i%2], i, i%4)})
	}
	if err := nft.New(netlinkKernel(t, c)).Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, args...)
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
		if err := errors.Join(ns.Start(cmd), cmd.Wait()); err != nil {
			t.Fatalf("nft %v: %v\n%s", args, err, out.String())
		}
		return out.String()
	}
	listing := run("", "list", "ruleset")
	run(listing, "-c", "-f", "-")
	run("flush ruleset\n"+listing, "-f", "-")
	if again := run("", "list", "ruleset"); len(again) == 0 {
		t.Error("nothing is there after loading")
	}
}
