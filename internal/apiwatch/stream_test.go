package apiwatch_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/apiwatch/apitest"
)

// lines is a log that can be read.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func (l *lines) config(c *apiwatch.Config) { c.Log = slog.New(slog.NewTextHandler(l, nil)) }

func node(zone string, addrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func cidr(name string, cidrs ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: cidrs}}
}

// TestWatcherStreamsLists follows a server that streams its lists: the first one, changes, and the one after a stream was
// cut, in which some things are the same, some are new and some are gone.
func TestWatcherStreamsLists(t *testing.T) {
	server := apitest.New(t)
	server.Set("services", svc("a", "10.96.0.1"), true)
	server.Set("services", svc("b", "10.96.0.2"), true)
	server.Set("endpointslices", slice("a-1", "a", "10.244.0.1"), true)
	server.Set("endpointslices", slice("b-1", "b", "10.244.0.2"), true)
	server.Set("nodes", node("zone-a", "10.240.0.11"), true)
	server.Set("servicecidrs", cidr("kubernetes", "10.96.0.0/16"), true)
	var seen atomic.Int32
	s, end := watch(t, server.Client(t), func(c *apiwatch.Config) { c.Seen = func(string) { seen.Add(1) } })
	if got, want := s.describe(), "a→10.244.0.1:8080 b→10.244.0.2:8080"; got != want {
		t.Errorf("once synced: got %q, want %q", got, want)
	}
	if got := s.cidrs(); got != "10.96.0.0/16" {
		t.Errorf("once synced: got networks %q", got)
	}
	server.Set("services", svc("c", "10.96.0.3"), false)
	s.wait(t, "a→10.244.0.1:8080 b→10.244.0.2:8080 c→")
	server.Delete("services", "b", false)
	s.wait(t, "a→10.244.0.1:8080 c→")

	server.Delete("endpointslices", "a-1", true)
	server.Set("services", svc("d", "10.96.0.4"), true)
	server.Cut()
	s.wait(t, "a→ c→ d→")
	end()
	if server.Lists() != 1 { // whether there are ServiceCIDRs
		t.Errorf("asked for %d lists that do not stream", server.Lists())
	}
	if n := seen.Load(); n < 6+2+4 { // the first objects, two changes, and at least what there is in the end
		t.Errorf("told of %d objects", n)
	}
}

func (s *sink) cidrs() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Changes()
	return strings.Trim(fmt.Sprint(s.table.All().CIDRs), "[]")
}

func TestServiceCIDRs(t *testing.T) {
	server := apitest.New(t)
	s, end := watch(t, server.Client(t))
	server.Set("servicecidrs", cidr("kubernetes", "10.96.0.0/16", "fd00:96::/112"), false)
	s.waitFor(t, "10.96.0.0/16 fd00:96::/112", s.cidrs)
	server.Set("servicecidrs", cidr("more", "10.97.0.0/16", "10.96.0.0/16", "nonsense"), false)
	s.waitFor(t, "10.96.0.0/16 10.97.0.0/16 fd00:96::/112", s.cidrs)
	server.Delete("servicecidrs", "more", false)
	s.waitFor(t, "10.96.0.0/16 fd00:96::/112", s.cidrs)
	server.Delete("servicecidrs", "kubernetes", true)
	server.Set("servicecidrs", cidr("other", "10.98.0.0/16"), true)
	server.Cut()
	s.waitFor(t, "10.98.0.0/16", s.cidrs)
	end()
}

// TestWithoutServiceCIDRs has a server that has none, and one that does not show them. It is asked once, and the rest
// works.
func TestWithoutServiceCIDRs(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			server, log := apitest.New(t), &lines{}
			server.Miss("servicecidrs", status)
			s, end := watch(t, server.Client(t), log.config)
			server.Set("services", svc("a", "10.96.0.1"), false)
			s.wait(t, "a→")
			end()
			if n := server.Requests("servicecidrs"); n != 1 {
				t.Errorf("asked %d times", n)
			}
			if n := log.count("ServiceCIDRs cannot be read"); n != 1 {
				t.Errorf("said so %d times", n)
			}
		})
	}
}

// TestServiceCIDRsFail has a server that fails on them alone: Services are served without.
func TestServiceCIDRsFail(t *testing.T) {
	server, log := apitest.New(t), &lines{}
	server.Miss("servicecidrs", http.StatusInternalServerError)
	_, end := watch(t, server.Client(t), log.config)
	end()
	if n := log.count("goes on without ServiceCIDRs"); n != 1 {
		t.Errorf("said so %d times", n)
	}
}

// TestServerGoesAway stops the API server and starts it again with other objects.
func TestServerGoesAway(t *testing.T) {
	server := apitest.New(t)
	server.Set("services", svc("a", "10.96.0.1"), true)
	s, end := watch(t, server.Client(t))
	server.Stop()
	server.Delete("services", "a", true)
	server.Set("services", svc("b", "10.96.0.2"), true)
	server.Restart(t)
	s.wait(t, "b→")
	end()
}

func TestNode(t *testing.T) {
	server := apitest.New(t)
	s, end := watch(t, server.Client(t))
	describe := func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Sprintf("%t %v %s %v %v %t", s.node.Exists, s.node.Addrs, s.node.Zone, s.node.PodCIDRs, s.node.Taints, s.node.Deleting)
	}
	if s.node.Exists {
		t.Error("there is no Node object, and it exists")
	}
	n := node("zone-a", "10.240.0.11", "fd00::11", "10.240.0.12")
	server.Set("nodes", n, false)
	s.waitFor(t, "true [10.240.0.11 fd00::11] zone-a [] [] false", describe)
	same := n.DeepCopy()
	same.Status.NodeInfo.KernelVersion = "6.18"
	server.Set("nodes", same, false)
	full := n.DeepCopy()
	full.Spec.PodCIDRs = []string{"10.244.1.0/24", "fd00:244:1::/64"}
	full.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}}
	full.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	server.Set("nodes", full, false)
	want := "[10.240.0.11 fd00::11] zone-a [10.244.1.0/24 fd00:244:1::/64] [ToBeDeletedByClusterAutoscaler] true"
	s.waitFor(t, "true "+want, describe)
	server.Delete("nodes", "node-1", false)
	s.waitFor(t, "false "+want, describe)
	end()
	if s.updates != 3+3 { // three first lists; the object, its change, its end
		t.Errorf("got %d updates", s.updates)
	}
}

func TestExternalIPsIgnored(t *testing.T) {
	server := apitest.New(t)
	object := svc("a", "10.96.0.1")
	object.Spec.ExternalIPs = []string{"192.0.2.1"}
	server.Set("services", object, true)
	for ignore, want := range map[bool]int{false: 2, true: 1} {
		s, end := watch(t, server.Client(t), func(c *apiwatch.Config) { c.IgnoreExternalIPs = ignore })
		end()
		s.table.Changes()
		if got := s.table.All().Ports[0].New.Frontends; len(got) != want || got[0].Addr != netip.MustParseAddrPort("10.96.0.1:80") {
			t.Errorf("ignored %t: got %v", ignore, got)
		}
	}
}
