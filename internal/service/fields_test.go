package service_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/service"
)

func prefixes(text string) (out []netip.Prefix) {
	for _, p := range strings.Fields(text) {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func addrs(text string) (out []netip.Addr) {
	for _, a := range strings.Fields(text) {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestSources(t *testing.T) {
	for _, c := range []struct{ name, at, node, sources, want string }{
		{"none", "10.0.0.1 *192.0.2.1", "", "", ""},
		{"sorted, masked, once", "10.0.0.1 *192.0.2.1", "", "203.0.113.9/24 198.51.100.0/25 203.0.113.0/24", "198.51.100.0/25 203.0.113.0/24"},
		{"of the other family only", "10.0.0.1 *192.0.2.1", "", "2001:db8::/32", ""},
		{"all of this family", "10.0.0.1 *192.0.2.1", "", "198.51.100.0/24 0.0.0.0/0", ""},
		{"all of the other family", "10.0.0.1 *192.0.2.1", "", "198.51.100.0/24 ::/0", "198.51.100.0/24"},
		{"no load balancer", "10.0.0.1 192.0.2.1", "", "198.51.100.0/24", ""},
		{"the node is let in, so are its load-balancer IPs", "10.0.0.1 *192.0.2.1 *192.0.2.2 192.0.2.3", "198.51.100.7", "198.51.100.0/24",
			"192.0.2.1/32 192.0.2.2/32 198.51.100.0/24"},
		{"the node is not", "10.0.0.1 *192.0.2.1", "198.51.101.7", "198.51.100.0/24", "198.51.100.0/24"},
		{"IPv6", "fd00::1 *2001:db8::1", "2001:db8:1::7 198.51.100.7", "2001:db8:1::/64 198.51.100.0/24", "2001:db8::1/128 2001:db8:1::/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := service.NewTable("node-1")
			table.SetNode(service.Node{Addrs: addrs(c.node)})
			s := svc("a", 1, c.at)
			s.Sources = prefixes(c.sources)
			table.SetService(s)
			if got := only(t, table).Sources; !slices.Equal(got, prefixes(c.want)) {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// told is the names of the Services that changes are about, and of health checks with a +.
func told(c service.Changes) string {
	var out []string
	for _, p := range c.Ports {
		out = append(out, p.Key().Service.Name)
	}
	for _, h := range c.Health {
		n := "gone"
		if h.New != nil {
			n = fmt.Sprint(h.New.Local)
		}
		out = append(out, "+"+n)
	}
	return strings.Join(out, " ")
}

// TestNode changes what is known of the node, and looks at which Services change by it.
func TestNode(t *testing.T) {
	table := service.NewTable("node-1")
	sourced := svc("sourced", 1, "10.0.0.2 *192.0.2.1")
	sourced.Sources = prefixes("198.51.100.0/24")
	for _, s := range []*service.Service{svc("plain", 1, "10.0.0.1"), sourced, svc("hinted", 1, "10.0.0.3")} {
		table.SetService(s)
	}
	table.SetSlice(slice("plain-1", "plain", "1.1.1.1 1.1.1.2"))
	table.SetSlice(slice("hinted-1", "hinted", "1.1.1.1>zone-a 1.1.1.2>zone-b"))
	table.Changes()
	for _, c := range []struct {
		node service.Node
		want string
	}{
		{service.Node{Zone: "zone-a"}, "hinted"},
		{service.Node{Zone: "zone-a", Addrs: addrs("198.51.100.7")}, "sourced"},
		{service.Node{Zone: "zone-a", Addrs: addrs("198.51.100.8")}, ""},
		{service.Node{Zone: "zone-b", Addrs: addrs("198.51.101.7")}, "hinted sourced"},
		{service.Node{Zone: "zone-c", Addrs: addrs("198.51.101.7")}, "hinted"},
		{service.Node{Addrs: addrs("198.51.101.7")}, ""}, // from all to all
	} {
		table.SetNode(c.node)
		if got := told(table.Changes()); got != c.want {
			t.Errorf("%+v: changes of %q, want of %q", c.node, got, c.want)
		}
	}
}

func TestHealthChecks(t *testing.T) {
	table := service.NewTable("node-1")
	step := func(want string) {
		t.Helper()
		if got := told(table.Changes()); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	s := svc("a", 1, "10.0.0.1 *192.0.2.1")
	s.HealthCheckPort, s.External = 31000, service.PolicyLocal
	table.SetService(s)
	step("a +[0 0]")
	table.SetSlice(slice("a-1", "a", "1.1.1.1@node-1 1.1.1.2@node-1 ~1.1.1.3@node-1 -1.1.1.4@node-1 1.1.1.5@node-2"))
	step("a +[2 0]")
	// An address counts once, whatever its ports; ports that the Service does not have count too, as upstream.
	other := slice("a-2", "a", "1.1.1.1@node-1 1.1.1.6@node-1 fd00::1@node-1")
	other.Ports = []service.SlicePort{{Name: "other", Protocol: service.TCP, Port: 9090}}
	table.SetSlice(other)
	step("+[3 1]")
	table.SetSlice(slice("a-1", "a", "1.1.1.1@node-1 1.1.1.5@node-2"))
	step("a +[2 1]")
	if all := table.All().Health; len(all) != 1 || *all[0].New != (service.HealthCheck{
		Service: s.Name, Port: 31000, Families: [2]bool{true, false}, Local: [2]int{2, 1},
	}) {
		t.Errorf("got %+v", all)
	}
	plain := *s
	plain.HealthCheckPort = 0
	table.SetService(&plain)
	step("+gone")
	table.SetService(s)
	step("+[2 1]")
	table.DeleteService(s.Name)
	step("a +gone")
}

// TestSameAgain sets what is there already, one by one and as a whole.
func TestSameAgain(t *testing.T) {
	table := service.NewTable("node-1")
	fill := func() ([]*service.Service, []*service.Slice) {
		a := svc("a", 1, "10.0.0.1 192.0.2.1 *192.0.2.2")
		a.Sources, a.Weights = prefixes("198.51.100.0/24"), []service.Weight{{Node: "node-1", Weight: 3}}
		s := slice("a-1", "a", "1.1.1.2>zone-a 1.1.1.1@node-1>node-1")
		s.Triggered = time.Unix(1, 0)
		return []*service.Service{a, svc("b", 1, "10.0.0.2 192.0.2.1")}, []*service.Slice{s, slice("b-1", "b", "-1.1.1.3")}
	}
	services, sls := fill()
	table.ReplaceServices(slices.Values(services))
	table.ReplaceSlices(slices.Values(sls))
	if got := told(table.Changes()); got != "a b" {
		t.Errorf("at first: told %q", got)
	}
	services, sls = fill()
	table.ReplaceServices(slices.Values(services))
	table.ReplaceSlices(slices.Values(sls))
	table.SetService(services[0])
	table.SetSlice(sls[0])
	if c := table.Changes(); !c.Empty() || len(c.Triggers) > 0 || len(c.Health) > 0 {
		t.Errorf("the same again: got %+v", c)
	}
	table.ReplaceServices(slices.Values(services[1:]))
	if got := told(table.Changes()); got != "a b" { // b gets the address that a had
		t.Errorf("a is gone: told %q", got)
	}
	table.ReplaceSlices(slices.Values(sls[:1]))
	table.ReplaceServices(slices.Values(services))
	table.Changes()
	want := "a at 10.0.0.1,192.0.2.2,192.0.2.1 to 1.1.1.1!,1.1.1.2\nb at 10.0.0.2 to "
	if got := state(table); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTriggers(t *testing.T) {
	table := service.NewTable("node-1")
	set := func(name string, at int64, endpoints string) {
		s := slice(name, "a", endpoints)
		s.Triggered = time.Unix(at, 0)
		if at == 0 {
			s.Triggered = time.Time{}
		}
		table.SetSlice(s)
	}
	step := func(want ...int64) {
		t.Helper()
		var got []int64
		for _, at := range table.Changes().Triggers {
			got = append(got, at.Unix())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	set("1", 7, "1.1.1.1")
	set("2", 5, "1.1.1.2")
	set("3", 0, "1.1.1.3")
	step(5, 7)
	step()
	set("1", 9, "1.1.1.1") // nothing but the time is new
	step()
	set("1", 9, "1.1.1.4")
	table.DeleteSlice(service.Name{Namespace: "x", Name: "2"})
	step()
}

func TestCIDRs(t *testing.T) {
	table := service.NewTable("node-1")
	table.SetCIDRs(prefixes("fd00::/64 10.96.1.1/16 10.96.0.0/16"))
	want := prefixes("10.96.0.0/16 fd00::/64")
	if c := table.Changes(); c.Empty() || !slices.Equal(c.CIDRs, want) || c.OldCIDRs != nil {
		t.Errorf("got %+v", c)
	}
	table.SetCIDRs(prefixes("10.96.0.0/16 fd00::/64"))
	if c := table.Changes(); !c.Empty() {
		t.Errorf("nothing changed, got %+v", c)
	}
	table.SetCIDRs(nil)
	if c := table.Changes(); c.Empty() || !slices.Equal(c.OldCIDRs, want) || len(c.CIDRs) != 0 {
		t.Errorf("got %+v", c)
	}
	if c := table.All(); len(c.CIDRs) != 0 || c.OldCIDRs != nil {
		t.Errorf("got %+v", c)
	}
}
