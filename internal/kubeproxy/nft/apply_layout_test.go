package nft_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// node is a node with two pods, each an echo server at port 8080, and a client beside it that sends everything to it.
type node struct {
	t      *testing.T
	hosts  map[string]*nettest.Namespace
	silent bool // no answer is expected
	plane  *nft.Plane
	kernel *nft.Netlink
	before service.Changes
}

func newNode(t *testing.T, c nft.Config) *node {
	t.Helper()
	nettest.NeedRoot(t)
	n := &node{t: t, hosts: map[string]*nettest.Namespace{}}
	for _, name := range []string{"node", "client", "pod-a", "pod-b"} {
		ns, err := nettest.NewNamespace(name)
		n.must(err)
		t.Cleanup(func() { ns.Close() })
		n.hosts[name] = ns
	}
	host, client := n.hosts["node"], n.hosts["client"]
	n.must(host.Forward())
	n.must(host.AddVeth("eth0", client, "eth0"))
	for _, a := range []string{"10.9.0.1/24", "fd09::1/64"} {
		n.must(host.AddAddr("eth0", netip.MustParsePrefix(a)))
	}
	for _, a := range []string{"10.9.0.2/24", "10.9.0.3/24", "fd09::2/64", "fd09::3/64"} {
		n.must(client.AddAddr("eth0", netip.MustParsePrefix(a)))
	}
	for i, a := range []string{"10.9.0.1", "fd09::1"} {
		n.must(client.AddDefaultRoute(netip.MustParseAddr(a)))
		n.must(host.AddDefaultRoute(clientAddr(families[i], 1)))
	}
	gateway := nettest.PodNetOf(1).Host(1)
	for i, pod := range []string{"pod-a", "pod-b"} {
		n.must(nettest.AddPod(host, n.hosts[pod], fmt.Sprintf("pod%d", i), nettest.PodNetOf(1).Host(2+i), gateway))
		echo, err := nettest.StartEcho(n.hosts[pod], pod, 8080)
		n.must(err)
		t.Cleanup(func() { echo.Close() })
	}
	c.Families, c.MasqueradeMark, c.NetNS = families, 1<<14, host.FD()
	n.kernel = nft.NewNetlink(c)
	t.Cleanup(func() { n.kernel.Close() })
	n.must(n.kernel.Check(t.Context()))
	n.plane = nft.New(n.kernel)
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// serve replaces what the node serves: ports, NodePorts at its addresses, and the networks of ClusterIPs.
func (n *node) serve(nodeAddrs []netip.Addr, ports ...*service.Port) {
	n.t.Helper()
	n.before = service.Changes{NodeAddrs: nodeAddrs, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/112")}}
	for _, p := range ports {
		n.before.Ports = append(n.before.Ports, service.Change{New: p})
	}
	n.must(n.plane.Replace(n.t.Context(), n.before))
}

// update changes one port.
func (n *node) update(old, new *service.Port) {
	n.t.Helper()
	n.must(n.plane.Update(n.t.Context(), service.Changes{Ports: []service.Change{{Old: old, New: new}}, OldNode: n.before.NodeAddrs,
		NodeAddrs: n.before.NodeAddrs, OldCIDRs: n.before.CIDRs, CIDRs: n.before.CIDRs}))
}

// ask returns "server from address", "refused" or "nothing".
func (n *node) ask(from, protocol, to string) string {
	n.t.Helper()
	host, local, _ := strings.Cut(from, "@")
	c := nettest.Client{Host: n.hosts[host], Protocol: protocol}
	if n.silent {
		c.Patience = 300 * time.Millisecond
	}
	to4 := netip.MustParseAddrPort(to).Addr().Is4()
	switch {
	case host == "client" && local == "" && to4:
		local = clientAddr(service.IPv4, 1).String()
	case host == "client" && local == "":
		local = clientAddr(service.IPv6, 1).String()
	}
	if local != "" {
		c.Local = netip.AddrPortFrom(netip.MustParseAddr(local), 0)
	}
	a, err := c.Ask(n.t.Context(), netip.MustParseAddrPort(to))
	switch {
	case errors.Is(err, nettest.ErrRefused):
		return "refused"
	case errors.Is(err, nettest.ErrNoAnswer):
		return "nothing"
	case err != nil:
		return err.Error()
	}
	return a.Server + " from " + a.Client.Addr().String()
}

// want asks several times and compares the distinct answers.
func (n *node) want(from, protocol, to string, want ...string) {
	n.t.Helper()
	var got []string
	n.silent = slices.Contains(want, "nothing")
	defer func() { n.silent = false }()
	for i := range 64 { // until every answer was given that is wanted, and others had a chance
		if i >= 8 && len(got) >= len(want) {
			break
		}
		a := n.ask(from, protocol, to)
		if !slices.Contains(got, a) {
			got = append(got, a)
		}
		if a == "nothing" || a == "refused" { // one takes time, the other is limited in number
			break
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		n.t.Errorf("%s to %s %s: got %q, want %q", from, protocol, to, got, want)
	}
}

var (
	family4 = [...]netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("10.244.7.7")}
	family6 = [...]netip.Addr{netip.MustParseAddr("fd00:244:0:1::2"), netip.MustParseAddr("fd00:244:0:1::3"), netip.MustParseAddr("fd00:244:0:7::7")}
)

// backend returns the nth pod: 0 and 1 are there and local, 2 is elsewhere.
func backend(f service.Family, i int) service.Backend {
	addrs := family4
	if f == service.IPv6 {
		addrs = family6
	}
	return service.Backend{Addr: netip.AddrPortFrom(addrs[i], 8080), Local: i < 2}
}

// at returns address i of a network in a family: 10.net.0.i or fdnet::i.
func at(f service.Family, net string, i int) netip.Addr {
	if f == service.IPv4 {
		return netip.MustParseAddr(fmt.Sprintf("10.%s.0.%d", net, i))
	}
	return netip.MustParseAddr(fmt.Sprintf("fd%s::%x", net, i))
}

// sample returns port i with a ClusterIP in 96, a NodePort 30000+i and an external IP in 97, changed by fn.
func sample(f service.Family, proto service.Protocol, i int, fn func(*service.Port)) *service.Port {
	p := &service.Port{Key: service.Key{Service: service.Name{Namespace: "x", Name: fmt.Sprint(i)}, Protocol: proto, Family: f}}
	zero := netip.IPv4Unspecified()
	if f == service.IPv6 {
		zero = netip.IPv6Unspecified()
	}
	p.Frontends = []service.Frontend{
		{Kind: service.ClusterIP, Addr: netip.AddrPortFrom(at(f, "96", i), 80)},
		{Kind: service.NodePort, Addr: netip.AddrPortFrom(zero, uint16(30000+i))},
		{Kind: service.LoadBalancerIP, Addr: netip.AddrPortFrom(at(f, "97", i), 80)},
		{Kind: service.ExternalIP, Addr: netip.AddrPortFrom(at(f, "98", i), 80)},
	}
	fn(p)
	p.HasEndpoints = p.HasEndpoints || len(p.Cluster) > 0
	return p
}

func atPort(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

func nodeAddrs() []netip.Addr {
	return []netip.Addr{at(service.IPv4, "9", 1), at(service.IPv6, "09", 1)}
}

func nodeAddr(f service.Family) netip.Addr {
	if f == service.IPv4 {
		return at(f, "9", 1)
	}
	return at(f, "09", 1)
}

// clientAddr returns the first or second address of the client.
func clientAddr(f service.Family, i int) netip.Addr {
	if f == service.IPv4 {
		return at(f, "9", 1+i)
	}
	return at(f, "09", 1+i)
}

// each runs fn for both families and TCP and UDP.
func each(t *testing.T, fn func(t *testing.T, f service.Family, proto service.Protocol)) {
	for _, f := range families {
		for _, p := range []service.Protocol{service.TCP, service.UDP} {
			t.Run(f.String()+"/"+p.String(), func(t *testing.T) { fn(t, f, p) })
		}
	}
}

// podNets knows pods by their addresses.
func podNets() nft.Detector { return nft.Detector{CIDRs: nettest.PodNet.Prefixes()} }

func TestPolicies(t *testing.T) {
	t.Parallel()
	n := newNode(t, nft.Config{Detector: podNets(), Counters: nft.CountAll})
	each(t, func(t *testing.T, f service.Family, proto service.Protocol) {
		n.t = t
		cluster := sample(f, proto, 1, func(p *service.Port) { p.Cluster = []service.Backend{backend(f, 0), backend(f, 1)} })
		local := sample(f, proto, 2, func(p *service.Port) {
			p.Cluster, p.Local = cluster.Cluster, cluster.Cluster[1:]
			p.Internal, p.External = service.PolicyLocal, service.PolicyLocal
		})
		elsewhere := sample(f, proto, 3, func(p *service.Port) {
			p.Cluster = cluster.Cluster[:1] // for shortcuts; a pod that is not local to the policy
			p.Internal, p.External = service.PolicyLocal, service.PolicyLocal
		})
		empty := sample(f, proto, 4, func(p *service.Port) {})
		n.serve(nodeAddrs(), cluster, local, elsewhere, empty)
		name, me := proto.String(), clientAddr(f, 1).String()
		gateway, pods := nettest.PodNetOf(1).Host(1).Addrs()[f/6], nettest.PodNetOf(1).Host(3).Addrs()[f/6].String()

		n.want("client", name, atPort(at(f, "96", 1), 80), "pod-a from "+gateway.String(), "pod-b from "+gateway.String())
		n.want("pod-b", name, atPort(at(f, "96", 1), 80), "pod-a from "+pods, "pod-b from "+gateway.String())
		n.want("client", name, atPort(nodeAddr(f), 30001), "pod-a from "+gateway.String(), "pod-b from "+gateway.String())
		n.want("client", name, atPort(at(f, "97", 1), 80), "pod-a from "+gateway.String(), "pod-b from "+gateway.String())

		n.want("client", name, atPort(at(f, "96", 2), 80), "pod-b from "+gateway.String())
		n.want("client", name, atPort(nodeAddr(f), 30002), "pod-b from "+me)
		n.want("client", name, atPort(at(f, "98", 2), 80), "pod-b from "+me)
		n.want("node", name, atPort(nodeAddr(f), 30002), "pod-a from "+gateway.String(), "pod-b from "+gateway.String())
		n.want("pod-b", name, atPort(at(f, "98", 2), 80), "pod-a from "+pods, "pod-b from "+gateway.String())

		n.want("client", name, atPort(at(f, "96", 3), 80), "nothing")
		n.want("client", name, atPort(nodeAddr(f), 30003), "nothing")
		n.want("client", name, atPort(at(f, "98", 3), 80), "nothing")
		n.want("pod-b", name, atPort(at(f, "97", 3), 80), "pod-a from "+pods)
		n.want("node", name, atPort(nodeAddr(f), 30003), "pod-a from "+gateway.String())

		for _, to := range []string{atPort(at(f, "96", 4), 80), atPort(nodeAddr(f), 30004), atPort(at(f, "97", 4), 80), atPort(at(f, "96", 1), 81)} {
			n.want("client", name, to, "refused")
			n.want("node", name, to, "refused")
		}
		n.want("client", name, atPort(at(f, "96", 200), 80), "nothing") // no Service has it
	})
}

var endpointElements = regexp.MustCompile(`(?s)(map endpoints \{[^}]*?)\n\t\telements = .*?\n\t\}`)

// TestEverythingCanBeListedAndLoaded has the nft command list all that there can be in the tables, and load it again.
func TestEverythingCanBeListedAndLoaded(t *testing.T) {
	t.Parallel()
	for _, d := range []nft.Detector{podNets(), {Bridge: "cni0"}, {InterfacePrefix: "veth"}} {
		n := newNode(t, nft.Config{Detector: d, Counters: nft.CountAll})
		var ports []*service.Port
		each(t, func(t *testing.T, f service.Family, proto service.Protocol) {
			for i := range 24 {
				ports = append(ports, sample(f, proto, 1+i, func(p *service.Port) {
					p.Cluster, p.Local = []service.Backend{backend(f, 0), backend(f, 1), backend(f, 2)}[:i%4], []service.Backend{backend(f, 1)}[:min(1, i%4)]
					p.Internal, p.External = service.Policy(i%2), service.Policy(i/2%2)
					p.Affinity, p.Balance = time.Duration(i%3)*time.Hour, service.Balance(i/12*2)
					p.Sources = []netip.Prefix{netip.PrefixFrom(clientAddr(f, 0), i), netip.PrefixFrom(clientAddr(f, 2), clientAddr(f, 0).BitLen())}
				}))
			}
		})
		maglev := sample(service.IPv4, service.SCTP, 99, func(p *service.Port) {
			p.Cluster, p.Balance = []service.Backend{backend(service.IPv4, 0)}, service.Maglev
		})
		if d.Bridge == "" && d.InterfacePrefix == "" { // once, because listing so many elements takes seconds
			ports = append(ports, maglev)
		}
		n.serve(append(nodeAddrs(), netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("127.0.0.1")), ports...)
		n.ask("client", "tcp", atPort(at(service.IPv4, "96", 2), 80)) // for an element of affinity
		listing := n.nft("", "list", "ruleset")
		listing = endpointElements.ReplaceAllString(listing, "$1\n\t}") // the same of loading them
		n.nft(listing, "-c", "-f", "-")
		n.nft("flush ruleset\n"+listing, "-f", "-")
		if again := n.nft("", "list", "ruleset"); listing != "" && len(again) < len(listing)/2 {
			t.Errorf("%d bytes were listed, after loading them %d", len(listing), len(again))
		}
	}
}

func (n *node) nft(stdin string, args ...string) string {
	n.t.Helper()
	path, err := exec.LookPath("nft")
	if err != nil {
		n.t.Log("no nft command here")
		return ""
	}
	cmd := exec.CommandContext(n.t.Context(), path, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := errors.Join(n.hosts["node"].Start(cmd), cmd.Wait()); err != nil {
		n.t.Errorf("nft %v: %v\n%s", args, err, out.String())
	}
	return out.String()
}
