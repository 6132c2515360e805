package service_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/service"
)

// svc is a Service x/NAME with a port 80/TCP. at is "ClusterIP external…", or with a leading * a load-balancer IP.
func svc(name string, created int64, at string) *service.Service {
	s := &service.Service{
		Name: service.Name{Namespace: "x", Name: name}, Created: time.Unix(created, 0),
		Ports: []service.ServicePort{{Protocol: service.TCP, Port: 80}},
	}
	for i, a := range strings.Fields(at) {
		addr := netip.MustParseAddr(strings.TrimPrefix(a, "*"))
		switch {
		case i == 0:
			s.ClusterIPs = append(s.ClusterIPs, addr)
		case strings.HasPrefix(a, "*"):
			s.LoadBalancerIPs = append(s.LoadBalancerIPs, addr)
		default:
			s.ExternalIPs = append(s.ExternalIPs, addr)
		}
	}
	return s
}

// slice is a Slice of a Service. An endpoint is ADDRESS, before it a sign of its condition if it is not simply ready, and
// behind it where it runs and which hints it has: -10.1.0.1@node-1/zone-a>node-1>zone-a>zone-b.
func slice(name, owner, endpoints string) *service.Slice {
	s := &service.Slice{
		Name: service.Name{Namespace: "x", Name: name}, Service: service.Name{Namespace: "x", Name: owner},
		Ports: []service.SlicePort{{Protocol: service.TCP, Port: 8080}},
	}
	for _, e := range strings.Fields(endpoints) {
		s.Endpoints = append(s.Endpoints, endpoint(e))
	}
	return s
}

func endpoint(text string) service.Endpoint {
	e := service.Endpoint{Ready: true, Serving: true}
	switch text[0] {
	case '-': // not ready
		e.Ready, e.Serving = false, false
	case '~': // terminating but serving
		e.Ready, e.Terminating = false, true
	case '!': // terminating
		e.Ready, e.Serving, e.Terminating = false, false, true
	case '+': // published although it is not ready
		e.Serving = false
	}
	place, hints, _ := strings.Cut(strings.TrimLeft(text, "-~!+"), ">")
	place, e.Zone, _ = strings.Cut(place, "/")
	place, e.Node, _ = strings.Cut(place, "@")
	e.Addr = netip.MustParseAddr(place)
	for _, h := range strings.FieldsFunc(hints, func(r rune) bool { return r == '>' }) {
		if strings.HasPrefix(h, "zone-") {
			e.ForZones = append(e.ForZones, h)
		} else {
			e.ForNodes = append(e.ForNodes, h)
		}
	}
	return e
}

// state is what the table asks for: "NAME at ADDRESSES to BACKENDS", one Service a line.
func state(t *service.Table) string {
	t.Changes()
	var lines []string
	for _, c := range t.All().Ports {
		var at, to []string
		for _, f := range c.New.Frontends {
			at = append(at, f.Addr.Addr().String())
		}
		for _, b := range c.New.Cluster {
			to = append(to, b.Addr.Addr().String()+map[bool]string{true: "!"}[b.Local])
		}
		lines = append(lines, fmt.Sprintf("%s at %s to %s", c.New.Key.Service.Name, strings.Join(at, ","), strings.Join(to, ",")))
	}
	return strings.Join(lines, "\n")
}

func TestWhoHasAnAddress(t *testing.T) {
	for _, c := range []struct {
		name     string
		services []*service.Service
		want     string
	}{
		{"the older one", []*service.Service{svc("a", 2, "10.0.0.1 192.0.2.1"), svc("b", 1, "10.0.0.2 192.0.2.1")},
			"a at 10.0.0.1 to \nb at 10.0.0.2,192.0.2.1 to "},
		{"among equals the first by name", []*service.Service{svc("b", 1, "10.0.0.2 192.0.2.1"), svc("a", 1, "10.0.0.1 192.0.2.1")},
			"a at 10.0.0.1,192.0.2.1 to \nb at 10.0.0.2 to "},
		{"load balancer before external IP", []*service.Service{svc("a", 1, "10.0.0.1 192.0.2.1"), svc("b", 2, "10.0.0.2 *192.0.2.1")},
			"a at 10.0.0.1 to \nb at 10.0.0.2,192.0.2.1 to "},
		{"ClusterIP before all", []*service.Service{svc("a", 1, "10.0.0.1 *10.0.0.2 10.0.0.2"), svc("b", 2, "10.0.0.2")},
			"a at 10.0.0.1 to \nb at 10.0.0.2 to "},
		{"one Service naming an address twice has it once", []*service.Service{svc("a", 1, "10.0.0.1 *192.0.2.1 192.0.2.1")},
			"a at 10.0.0.1,192.0.2.1 to "},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := service.NewTable("node-1")
			for _, s := range c.services {
				table.SetService(s)
			}
			if got := state(table); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestAddressChangesHands follows an address from one Service to another and back, and looks at what changes are told.
func TestAddressChangesHands(t *testing.T) {
	table := service.NewTable("node-1")
	step := func(want string) {
		t.Helper()
		var told []string
		for _, c := range table.Changes().Ports {
			told = append(told, c.Key().Service.Name)
		}
		if got := strings.Join(told, ","); got != want {
			t.Errorf("changes of %q, want of %q", got, want)
		}
	}
	old, young := svc("old", 1, "10.0.0.1 192.0.2.1"), svc("young", 2, "10.0.0.2 192.0.2.1")
	table.SetService(young)
	step("young")
	table.SetService(old)
	step("old,young")
	table.SetService(svc("other", 3, "10.0.0.3"))
	step("other")
	table.SetService(svc("old", 1, "10.0.0.1"))
	step("old,young")
	table.SetService(old)
	step("old,young")
	table.SetService(old)
	step("")
	table.DeleteService(old.Name)
	step("old,young")
	if got, want := state(table), "other at 10.0.0.3 to \nyoung at 10.0.0.2,192.0.2.1 to "; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestBackends(t *testing.T) {
	for _, c := range []struct {
		name   string
		slices []*service.Slice
		want   string
	}{
		{"ready ones, local ones marked", []*service.Slice{slice("1", "a", "10.1.0.2@node-2 10.1.0.1@node-1 -10.1.0.3")}, "10.1.0.1!,10.1.0.2"},
		{"of all slices", []*service.Slice{slice("1", "a", "10.1.0.2"), slice("2", "a", "10.1.0.1"), slice("3", "b", "10.1.0.9")}, "10.1.0.1,10.1.0.2"},
		{"terminating ones while nothing is ready", []*service.Slice{slice("1", "a", "~10.1.0.1 -10.1.0.2")}, "10.1.0.1"},
		{"no terminating ones beside ready ones", []*service.Slice{slice("1", "a", "~10.1.0.1 10.1.0.2")}, "10.1.0.2"},
		{"an address twice counts once, not terminating", []*service.Slice{slice("1", "a", "10.1.0.1"), slice("2", "a", "~10.1.0.1")}, "10.1.0.1"},
		{"an address twice, in slices named the other way", []*service.Slice{slice("1", "a", "~10.1.0.1 -10.1.0.2"), slice("2", "a", "10.1.0.1 10.1.0.2")}, "10.1.0.1,10.1.0.2"},
		{"an address twice in a slice", []*service.Slice{slice("1", "a", "-10.1.0.1 10.1.0.1 ~10.1.0.1")}, "10.1.0.1"},
		{"none of the other family", []*service.Slice{slice("1", "a", "fd00::1")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // in both orders
				table := service.NewTable("node-1")
				table.SetService(svc("a", 1, "10.0.0.1"))
				for _, s := range c.slices {
					table.SetSlice(s)
				}
				if got, want := state(table), "a at 10.0.0.1 to "+c.want; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				slices.Reverse(c.slices)
			}
		})
	}
}

func TestNodeAddrs(t *testing.T) {
	table := service.NewTable("node-1")
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	table.SetNodeAddrs([]netip.Addr{b, a, b})
	if c := table.Changes(); c.Empty() || !slices.Equal(c.NodeAddrs, []netip.Addr{a, b}) || c.OldNode != nil {
		t.Errorf("got %+v", c)
	}
	if c := table.Changes(); !c.Empty() {
		t.Errorf("nothing changed, got %+v", c)
	}
	if c := table.All(); !slices.Equal(c.NodeAddrs, []netip.Addr{a, b}) {
		t.Errorf("got %+v", c)
	}
}
