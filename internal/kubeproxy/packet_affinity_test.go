package kubeproxy_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"varco.dev/internal/nettest"
)

// crowdSize is how many clients a test of affinity has: that all of them choose one of three backends as another drawing
// did happens once in 10^7 runs.
const crowdSize = 16

// crowd is many clients: addresses of the client outside, and how they ask.
type crowd struct {
	s        *stage
	addrs    []netip.Addr
	protocol string
	family   int
}

// crowds gives the client so many addresses of each family and returns them, asking by TCP and by UDP. No two calls for one
// stage may have the same start.
func (s *stage) crowds(start int) (out []crowd) {
	s.t.Helper()
	var addrs [2][]netip.Addr
	for i := range crowdSize {
		for f, p := range nettest.ClientNet.Host(start + i).Prefixes() {
			s.must(s.world.Client.AddAddr("eth0", p))
			addrs[f] = append(addrs[f], p.Addr())
		}
	}
	for f := range 2 {
		for _, protocol := range []string{"tcp", "udp"} {
			out = append(out, crowd{s, addrs[f], protocol, f})
		}
	}
	return out
}

func (c crowd) String() string { return c.protocol + []string{"4", "6"}[c.family] }

// to is where a target of a packet table is for the crowd.
func (c crowd) to(target string) netip.AddrPort {
	for _, r := range c.s.targets(target) {
		if r.Protocol == c.protocol && r.To.Addr().Is6() == (c.family == 1) {
			return r.To
		}
	}
	panic("no address for " + c.String() + ": " + target)
}

func (c crowd) client(i int) nettest.Client {
	return nettest.Client{Host: c.s.world.Client, Protocol: c.protocol, Local: netip.AddrPortFrom(c.addrs[i], 0)}
}

// ask has each client open a connection, and returns the backends that answer. It may be called on any goroutine.
func (c crowd) ask(t *testing.T, target string) (backends []string) {
	t.Helper()
	to := c.to(target)
	for i := range c.addrs {
		a, err := c.client(i).Ask(t.Context(), to)
		if err != nil {
			t.Errorf("%s to %s: %v", c.addrs[i], to, err)
		}
		backends = append(backends, a.Server)
	}
	return backends
}

// stay checks that each client still has its backend.
func (c crowd) stay(t *testing.T, before []string, target string) {
	t.Helper()
	if diff := cmp.Diff(before, c.ask(t, target)); diff != "" {
		t.Errorf("%s at %s: some clients changed their backends (-before +after):\n%s", c, target, diff)
	}
}

// move checks that some client has another backend.
func (c crowd) move(t *testing.T, before []string, target string) {
	t.Helper()
	if slices.Equal(before, c.ask(t, target)) {
		t.Errorf("%s at %s: all clients kept their backends", c, target)
	}
}

// TestAffinity has many clients come again and again by all addresses of a Service port.
func TestAffinity(t *testing.T) {
	s := newStage(t)
	s.serve("affinity.txtar", knowsPods())
	for _, c := range s.crowds(100) {
		t.Run(c.String(), func(t *testing.T) {
			first := c.ask(t, "sticky-long LoadBalancerIP")
			if len(slices.Compact(slices.Sorted(slices.Values(first)))) < 2 {
				t.Errorf("all clients have the same backend: %v", first)
			}
			for _, at := range []string{"LoadBalancerIP", "NodePort@node-1", "ClusterIP", "ExternalIP", "LoadBalancerIP"} {
				c.stay(t, first, "sticky-long "+at)
			}
			c.move(t, c.ask(t, "plain LoadBalancerIP"), "plain LoadBalancerIP")
			// The external policy leaves some of the backends.
			local := c.ask(t, "sticky-local LoadBalancerIP")
			if slices.Contains(local, "pod-2a") {
				t.Errorf("policy Local let clients out to %v", local)
			}
			c.stay(t, local, "sticky-local NodePort@node-1")
			c.stay(t, local, "sticky-local ClusterIP")
			if c.protocol == "tcp" {
				// Ports of a Service do not share it.
				c.move(t, c.ask(t, "sticky/tcp ClusterIP"), "sticky/second ClusterIP")
			}
		})
	}
}

// TestAffinityChanges has endpoints leave and come back, other Services change, and the data plane start again.
func TestAffinityChanges(t *testing.T) {
	s := newStage(t)
	s.serve("affinity.txtar", knowsPods())
	const at = "sticky-long LoadBalancerIP"
	var before [][]string
	crowds := s.crowds(100)
	each := func(name string, check func(t *testing.T, c crowd, before []string) (after []string)) {
		t.Helper()
		s.forgetAll()
		t.Run(name, func(t *testing.T) {
			for i, c := range crowds {
				before[i] = check(t, c, before[i])
			}
		})
	}
	stay := func(t *testing.T, c crowd, before []string) []string {
		c.stay(t, before, at)
		return before
	}
	for _, c := range crowds {
		before = append(before, c.ask(t, at))
	}
	s.set(s.service("plain").DeepCopy())
	s.change(func(n *stageNode) { deleteSlices(n.table, "plain") })
	each("another Service changes", stay)
	s.restart(knowsPods())
	each("restart", stay)
	ready := s.slices("sticky-long")
	for _, unready := range []bool{true, false} {
		for _, slice := range ready {
			s.set(without(slice, "node-2", unready))
		}
		each(fmt.Sprintf("endpoint leaves, unready %t", unready), func(t *testing.T, c crowd, before []string) []string {
			after := c.ask(t, at)
			for i, b := range before {
				if b != after[i] && b != "pod-2a" || after[i] == "pod-2a" {
					t.Errorf("%s: client %d had %s and has %s", c, i, b, after[i])
				}
			}
			return after
		})
		each("those who had to change stay", stay)
		for _, slice := range ready {
			s.set(slice)
		}
		each("endpoint comes back", stay)
	}
	svc := s.service("sticky-long").DeepCopy()
	svc.Spec.SessionAffinity = corev1.ServiceAffinityNone
	s.set(svc)
	each("no affinity", func(t *testing.T, c crowd, before []string) []string {
		c.move(t, before, at)
		return before
	})
}

// slices returns the EndpointSlices of a Service of the file served last.
func (s *stage) slices(service string) (out []*discoveryv1.EndpointSlice) {
	for _, o := range s.objects {
		if slice, ok := o.(*discoveryv1.EndpointSlice); ok && slice.Labels[discoveryv1.LabelServiceName] == service {
			out = append(out, slice)
		}
	}
	return out
}

// without is a slice without the endpoints of a node, or with them unready.
func without(slice *discoveryv1.EndpointSlice, node string, unready bool) *discoveryv1.EndpointSlice {
	slice = slice.DeepCopy()
	of := func(e discoveryv1.Endpoint) bool { return e.NodeName != nil && *e.NodeName == node }
	if !unready {
		slice.Endpoints = slices.DeleteFunc(slice.Endpoints, of)
		return slice
	}
	for i, e := range slice.Endpoints {
		if of(e) {
			no := false
			slice.Endpoints[i].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &no}
		}
	}
	return slice
}

// TestAffinityExpires is the timeout of 3 seconds: new connections start it again, packets of old ones do not.
func TestAffinityExpires(t *testing.T) {
	s := newStage(t)
	s.serve("affinity.txtar", knowsPods())
	const at, timeout = "sticky LoadBalancerIP", 3 * time.Second
	var all sync.WaitGroup
	for _, c := range s.crowds(100) {
		all.Go(func() {
			start := time.Now()
			before := c.ask(t, at)
			for range 2 {
				time.Sleep(2 * time.Second) // shorter than the timeout, and in sum longer
				again := time.Now()
				after := c.ask(t, at)
				// On a machine that stood still for a second the timeout is over.
				if time.Since(start) < timeout && !slices.Equal(before, after) {
					t.Errorf("%s: clients that came again changed their backends: %v, then %v", c, before, after)
				}
				start, before = again, after
			}
			time.Sleep(timeout + time.Second) // longer than the timeout
			c.move(t, before, at)
		})
	}
	for _, c := range s.crowds(200) {
		if c.protocol == "tcp" {
			continue
		}
		all.Go(func() {
			keep := make([]net.Conn, len(c.addrs))
			first := make([]string, len(c.addrs))
			for i := range c.addrs {
				if keep[i], first[i] = c.open(t, i, at); keep[i] == nil {
					return
				}
			}
			for range 8 {
				time.Sleep(500 * time.Millisecond) // in sum longer than the timeout
				for i, conn := range keep {
					if got := hello(t, conn); got != first[i] {
						t.Errorf("%s: an open flow went from %s to %s", c, first[i], got)
					}
				}
			}
			c.move(t, first, at)
		})
	}
	all.Wait()
}

// open opens a flow of UDP and keeps it.
func (c crowd) open(t *testing.T, i int, target string) (conn net.Conn, backend string) {
	t.Helper()
	conn, err := c.client(i).Dial(t.Context(), c.to(target))
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	t.Cleanup(func() { conn.Close() })
	return conn, hello(t, conn)
}

// hello sends a packet and returns the backend that answers.
func hello(t *testing.T, conn net.Conn) (backend string) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 256)
	_, err := io.WriteString(conn, "hello")
	if err == nil {
		_, err = conn.Read(buf)
	}
	if err != nil {
		t.Error(err)
	}
	fmt.Sscan(string(buf), &backend)
	return backend
}

// TestAffinityIsBounded has more clients than there is room for: those beyond are served all the same.
func TestAffinityIsBounded(t *testing.T) {
	s := newStage(t)
	config := knowsPods()
	config.AffinitySize = 4
	s.serve("affinity.txtar", config)
	for _, c := range s.crowds(100) {
		c.move(t, c.ask(t, "sticky-long ClusterIP"), "sticky-long ClusterIP")
	}
}
