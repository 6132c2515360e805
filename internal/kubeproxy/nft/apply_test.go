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
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"varco.dev/internal/kernel"
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
		p.Backends = append(p.Backends, service.Backend{Addr: netip.AddrPortFrom(at(244, i*n+j), 8080), Local: j == 0})
	}
	return p
}

// content reads the elements that the kernel holds, as nfttest.Kernel dumps them.
func content(t *testing.T, ns *nettest.Namespace) string {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for family, f := range map[service.Family]nftables.TableFamily{service.IPv4: nftables.TableFamilyIPv4, service.IPv6: nftables.TableFamilyIPv6} {
		for s := nft.Services; s <= nft.Hairpins; s++ {
			set, err := conn.GetSetByName(&nftables.Table{Name: nft.TableName, Family: f}, s.String())
			if err != nil {
				t.Fatalf("get set %s: %v", s, err)
			}
			elements, err := conn.GetSetElements(set)
			if err != nil {
				t.Fatalf("get elements of %s: %v", s, err)
			}
			for _, e := range elements {
				place := nft.Place{Family: family, Set: s, Key: string(e.Key)}
				lines = append(lines, nft.Element{Place: place, Value: string(e.Val)}.String())
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// elements drops what a dump has beside elements.
func elements(dump string) string {
	lines := slices.DeleteFunc(strings.Fields(strings.ReplaceAll(strings.ReplaceAll(dump, " ", "_"), "\n", " ")),
		func(l string) bool { return strings.HasPrefix(l, "class_") })
	return strings.ReplaceAll(strings.Join(lines, "\n"), "_", " ")
}

// tee commits to both kernels.
type tee struct{ real, fake nft.Kernel }

func (k tee) Commit(ctx context.Context, tx nft.Transaction) error {
	return errors.Join(k.real.Commit(ctx, tx), k.fake.Commit(ctx, tx))
}

func TestKernelHoldsWhatWasCommitted(t *testing.T) {
	ns, fake := namespace(t), &nfttest.Kernel{}
	plane := nft.New(tee{nft.NewNetlink(config(ns)), fake})
	same := func(step string) {
		t.Helper()
		if diff := cmp.Diff(elements(fake.Dump()), content(t, ns)); diff != "" {
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
	k := nft.NewNetlink(config(ns))
	p := port(service.IPv4, 1, 2)
	if err := nft.New(k).Replace(t.Context(), service.Changes{Ports: []service.Change{{New: p}}}); err != nil {
		t.Fatal(err)
	}
	before := content(t, ns)
	there, notThere := nft.Render(p, 0, p.Backends), nft.Render(port(service.IPv4, 2, 1), 1, nil)
	err := k.Commit(t.Context(), nft.Transaction{Delete: append(there[:1:1], notThere...)})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("got error %v, want ENOENT", err)
	}
	if diff := cmp.Diff(before, content(t, ns)); diff != "" {
		t.Errorf("(-before +after)\n%s", diff)
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
	k := nft.NewNetlink(config(ns))
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

// TestCheckExplains answers as kernels do that lack nf_tables or a part of it, or that do not let this process use it.
func TestCheckExplains(t *testing.T) {
	for _, c := range []struct {
		name        string
		list, batch unix.Errno // answers to the question for tables, and to the transaction
		want        string     // part of the error
		unsupported bool
	}{
		{"no nf_tables", unix.EINVAL, 0, "lacks nf_tables (CONFIG_NF_TABLES): use Linux 5.13", true},
		{"no netfilter", unix.EOPNOTSUPP, 0, "lacks nf_tables", true},
		{"an expression is missing", 0, unix.ENOENT, "_NUMGEN", true},
		{"not allowed", unix.EPERM, 0, "needs root", false},
		{"out of memory", 0, unix.ENOMEM, "cannot allocate memory", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := nft.NewNetlink(nft.Config{Families: families}, nftables.WithTestDial(answers(c.list, c.batch)))
			err := k.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got error %v, want one line with %q", err, c.want)
			}
			unsupported, ok := errors.AsType[*kernel.UnsupportedError](err)
			if ok != c.unsupported || errors.Is(err, errors.ErrUnsupported) != c.unsupported {
				t.Errorf("got %T", err)
			}
			if ok && unsupported.MinVersion != "5.13" {
				t.Errorf("got minimum version %q", unsupported.MinVersion)
			}
		})
	}
}

// answers is a kernel that answers the question for tables with an error, or with none at all, and each message of a
// transaction with the other error.
func answers(list, batch unix.Errno) func([]netlink.Message) ([]netlink.Message, error) {
	return func(sent []netlink.Message) ([]netlink.Message, error) {
		errno := batch
		if len(sent) == 1 {
			errno = list
		}
		if errno != 0 {
			return nil, &netlink.OpError{Op: "receive", Err: errno}
		}
		header := sent[0].Header
		header.Type, header.Flags = netlink.Done, netlink.Multi
		return []netlink.Message{{Header: header, Data: make([]byte, 4)}}, nil
	}
}

// TestTwoWriters has two data planes write the same tables, which number Services alike: the one whose tables are gone must
// notice, not write over the other's.
func TestTwoWriters(t *testing.T) {
	ns := namespace(t)
	one, other := nft.New(nft.NewNetlink(config(ns))), nft.New(nft.NewNetlink(config(ns)))
	all := service.Changes{Ports: []service.Change{{New: port(service.IPv4, 1, 1)}, {New: port(service.IPv4, 2, 1)}}}
	for _, p := range []*nft.Plane{one, other} {
		if err := p.Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	before := content(t, ns)
	change := service.Changes{Ports: []service.Change{{Old: all.Ports[0].New}}}
	if err := one.Update(t.Context(), change); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got error %v, want ENOENT", err)
	}
	if diff := cmp.Diff(before, content(t, ns)); diff != "" {
		t.Errorf("(-before +after)\n%s", diff)
	}
	if err := other.Update(t.Context(), change); err != nil {
		t.Errorf("whose tables they are: %v", err)
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
	c.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}
	all := service.Changes{NodeAddrs: []netip.Addr{netip.MustParseAddr("10.240.0.11"), netip.MustParseAddr("fd00:240::b")}}
	for i := range 12 {
		all.Ports = append(all.Ports, service.Change{New: port(families[i%2], i, i%4)})
	}
	if err := nft.New(nft.NewNetlink(c)).Replace(t.Context(), all); err != nil {
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
