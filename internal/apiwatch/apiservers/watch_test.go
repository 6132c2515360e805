package apiservers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"varco.dev/internal/apiwatch/apiservers"
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

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// watched is what a watch said.
type watched struct {
	t    *testing.T
	said chan string
	log  lines
	end  func()
}

// watch runs a watch until the test ends it, or ends itself.
func watch(t *testing.T, client kubernetes.Interface) *watched {
	w := &watched{t: t, said: make(chan string, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- apiservers.Watch(ctx, apiservers.Config{Client: client, Log: slog.New(slog.NewTextHandler(&w.log, nil))}, func(addrs []netip.AddrPort) {
			w.said <- strings.Trim(fmt.Sprint(addrs), "[]")
			clear(addrs) // they are the callee's
		})
	}()
	w.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch returned %v at the end of its context", err)
		}
	})
	t.Cleanup(w.end)
	return w
}

// next fails the test unless this is what the watch says next.
func (w *watched) next(want string) {
	w.t.Helper()
	select {
	case got := <-w.said:
		if got != strings.Trim(want, "[]") {
			w.t.Fatalf("said %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		w.t.Fatalf("did not say %q: %s", want, w.log.String())
	}
}

// quiet fails the test if the watch has said anything.
func (w *watched) quiet() {
	w.t.Helper()
	select {
	case got := <-w.said:
		w.t.Errorf("said %q", got)
	default:
	}
}

// servers returns a slice of API servers; addresses that begin with ! are not ready.
func servers(name string, addrs ...string) *discoveryv1.EndpointSlice {
	https, port, tcp := "https", int32(6443), corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &https, Port: &port, Protocol: &tcp}},
	}
	for _, a := range addrs {
		ip, unready := strings.CutPrefix(a, "!")
		ready := !unready
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
		if strings.Contains(ip, ":") {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
	}
	return s
}

// port is one of a slice; no name: nil.
func port(name *string, n int32, p corev1.Protocol) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: name, Port: &n, Protocol: &p}
}

// TestSlices looks at what slices come to.
func TestSlices(t *testing.T) {
	https, other, none := "https", "konnectivity", ""
	change := func(s *discoveryv1.EndpointSlice, f func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		f(s)
		return s
	}
	ports := func(p ...discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
		return change(servers("kubernetes", "10.0.0.1"), func(s *discoveryv1.EndpointSlice) { s.Ports = p })
	}
	one := servers("kubernetes", "10.0.0.1")
	for _, c := range []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		want   string
		warns  bool
	}{
		{"none", nil, "", false},
		{"three", []*discoveryv1.EndpointSlice{servers("kubernetes", "10.0.0.3", "10.0.0.1", "10.0.0.2")}, "10.0.0.1:6443 10.0.0.2:6443 10.0.0.3:6443", false},
		{"IPv6", []*discoveryv1.EndpointSlice{servers("kubernetes", "fd00::2", "fd00::1")}, "[fd00::1]:6443 [fd00::2]:6443", false},
		{"both families", []*discoveryv1.EndpointSlice{servers("b", "fd00::1"), servers("a", "10.0.0.1")}, "10.0.0.1:6443 [fd00::1]:6443", false},
		{"several slices that overlap", []*discoveryv1.EndpointSlice{servers("a", "10.0.0.1", "10.0.0.2"), servers("b", "10.0.0.2", "10.0.0.3")},
			"10.0.0.1:6443 10.0.0.2:6443 10.0.0.3:6443", false},
		{"some are not ready", []*discoveryv1.EndpointSlice{servers("a", "10.0.0.1", "!10.0.0.2"), servers("b", "!10.0.0.3")}, "10.0.0.1:6443", false},
		{"none is ready", []*discoveryv1.EndpointSlice{servers("a", "!10.0.0.1", "!10.0.0.2"), servers("b", "!10.0.0.3")},
			"10.0.0.1:6443 10.0.0.2:6443 10.0.0.3:6443", false},
		{"ready is not said", []*discoveryv1.EndpointSlice{servers("b", "!10.0.0.3"),
			change(servers("a", "10.0.0.1"), func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = nil })}, "10.0.0.1:6443", false},
		{"no endpoints and no ports", []*discoveryv1.EndpointSlice{change(servers("a"), func(s *discoveryv1.EndpointSlice) { s.Ports = nil })}, "", false},
		{"several ports", []*discoveryv1.EndpointSlice{ports(port(&other, 8132, corev1.ProtocolTCP), port(&https, 443, corev1.ProtocolTCP), port(nil, 1, corev1.ProtocolUDP))},
			"10.0.0.1:443", false},
		{"one port of another name", []*discoveryv1.EndpointSlice{ports(port(&other, 443, corev1.ProtocolTCP))}, "10.0.0.1:443", false},
		{"one port without a name", []*discoveryv1.EndpointSlice{ports(port(nil, 443, ""))}, "10.0.0.1:443", false},
		{"one port with an empty name", []*discoveryv1.EndpointSlice{ports(port(&none, 443, ""))}, "10.0.0.1:443", false},
		{"several ports of other names", []*discoveryv1.EndpointSlice{servers("b", "10.0.0.2"), ports(port(&other, 443, ""), port(&none, 444, ""))}, "10.0.0.2:6443", true},
		{"no ports", []*discoveryv1.EndpointSlice{ports()}, "", true},
		{"not TCP", []*discoveryv1.EndpointSlice{ports(port(&https, 443, corev1.ProtocolUDP))}, "", true},
		{"port 0", []*discoveryv1.EndpointSlice{ports(port(&https, 0, corev1.ProtocolTCP))}, "", true},
		{"no number", []*discoveryv1.EndpointSlice{ports(discoveryv1.EndpointPort{Name: &https})}, "", true},
		{"an address that nobody has", []*discoveryv1.EndpointSlice{servers("kubernetes", "10.0.0.1", "0.0.0.0", "x")}, "10.0.0.1:6443", true},
		{"an address of the other family", []*discoveryv1.EndpointSlice{servers("kubernetes", "10.0.0.1", "fd00::1")}, "[fd00::1]:6443", true},
		{"no address", []*discoveryv1.EndpointSlice{change(servers("kubernetes", "10.0.0.1", "10.0.0.2"), func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = nil })},
			"10.0.0.2:6443", false},
		{"of another Service", []*discoveryv1.EndpointSlice{one, change(servers("b", "10.9.9.9"), func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "x" })},
			"10.0.0.1:6443", false},
		{"of no Service", []*discoveryv1.EndpointSlice{one, change(servers("b", "10.9.9.9"), func(s *discoveryv1.EndpointSlice) { s.Labels = nil })}, "10.0.0.1:6443", false},
		{"of another namespace", []*discoveryv1.EndpointSlice{one, change(servers("b", "10.9.9.9"), func(s *discoveryv1.EndpointSlice) { s.Namespace = "x" })}, "10.0.0.1:6443", false},
		{"of names", []*discoveryv1.EndpointSlice{one, change(servers("b", "api"), func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN })},
			"10.0.0.1:6443", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := apitest.New(t)
			for _, s := range c.slices {
				server.Set("endpointslices", s, true)
			}
			w := watch(t, server.Client(t))
			w.next(c.want)
			w.end()
			w.quiet()
			if got := strings.Contains(w.log.String(), "level=WARN"); got != c.warns {
				t.Errorf("log: %s", w.log.String())
			}
		})
	}
}

// TestChangesOfSlices follows a server that streams: what changes, what does not, and what is other after a stream was cut.
func TestChangesOfSlices(t *testing.T) {
	server := apitest.New(t)
	set := func(s *discoveryv1.EndpointSlice) { server.Set("endpointslices", s, false) }
	server.Set("endpointslices", servers("kubernetes", "10.0.0.1"), true)
	w := watch(t, server.Client(t))
	w.next("10.0.0.1:6443")
	set(servers("kubernetes", "10.0.0.1", "10.0.0.2"))
	w.next("10.0.0.1:6443 10.0.0.2:6443")
	set(servers("kubernetes", "10.0.0.2", "10.0.0.1")) // the same
	set(servers("b", "fd00::1"))
	w.next("10.0.0.1:6443 10.0.0.2:6443 [fd00::1]:6443")
	set(servers("kubernetes", "!10.0.0.1", "10.0.0.2"))
	w.next("10.0.0.2:6443 [fd00::1]:6443")
	foreign := servers("b", "fd00::1")
	foreign.Labels = map[string]string{discoveryv1.LabelServiceName: "x"} // it changes hands
	set(foreign)
	w.next("10.0.0.2:6443")
	set(servers("kubernetes"))
	w.next("") // whether to believe it is another's business
	set(servers("kubernetes", "10.0.0.7", "10.0.0.8"))
	w.next("10.0.0.7:6443 10.0.0.8:6443")
	server.Delete("endpointslices", "kubernetes", false)
	w.next("")

	set(servers("kubernetes", "10.0.0.8"))
	w.next("10.0.0.8:6443")
	server.Delete("endpointslices", "kubernetes", true)
	server.Set("endpointslices", servers("c", "10.0.0.9"), true)
	server.Cut()
	w.next("10.0.0.9:6443")
	server.Stop()
	server.Set("endpointslices", servers("c", "10.0.0.10"), true)
	server.Restart(t)
	w.next("10.0.0.10:6443")
	w.quiet()
}

// A server that is away at the start is waited for.
func TestServerAwayAtStart(t *testing.T) {
	server := apitest.New(t)
	server.Set("endpointslices", servers("kubernetes", "10.0.0.1"), true)
	client := server.Client(t)
	server.Stop()
	w := watch(t, client)
	time.Sleep(50 * time.Millisecond) // some attempts fail, or none has begun; both are fine
	w.quiet()
	server.Restart(t)
	w.next("10.0.0.1:6443")
}

// Who may not list says so once, with the rights that are missing, and does not ask on and on. Its watch ends at once.
func TestMayNotList(t *testing.T) {
	server := apitest.New(t)
	server.Miss("endpointslices", http.StatusForbidden)
	w := watch(t, server.Client(t))
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(w.log.String(), "list and watch endpointslices.discovery.k8s.io in namespace default"); {
		if time.Now().After(deadline) {
			t.Fatalf("log: %s", w.log.String())
		}
		time.Sleep(time.Millisecond) // a log gives no sign
	}
	w.end()
	w.quiet()
	if got := server.Requests("endpointslices"); got != 1 {
		t.Errorf("%d requests", got)
	}
}

// TestAsksForNothingElse looks at all requests: the slices of one Service in one namespace, and nothing that the role in
// deploy does not allow.
func TestAsksForNothingElse(t *testing.T) {
	client := fake.NewClientset(servers("kubernetes", "10.0.0.1"))
	w := watch(t, client)
	w.next("10.0.0.1:6443")
	apitest.AwaitWatches(t, &client.Fake, 0, "endpointslices")
	_, err := client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), servers("kubernetes", "10.0.0.2"), metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.next("10.0.0.2:6443")
	w.end()
	rights := allowed(t)
	var selectors []string
	for _, a := range client.Actions() {
		if a.GetVerb() == "update" {
			continue // the test's own
		}
		if !rights[a.GetNamespace()+" "+a.GetVerb()+" "+a.GetResource().Resource+"."+a.GetResource().Group] {
			t.Errorf("%s %s in %q is not allowed", a.GetVerb(), a.GetResource(), a.GetNamespace())
		}
		if l, ok := a.(clienttesting.ListAction); ok && l.GetListRestrictions().Labels.String() != "" {
			selectors = append(selectors, l.GetListRestrictions().Labels.String())
		}
		if l, ok := a.(clienttesting.WatchAction); ok {
			selectors = append(selectors, l.GetWatchRestrictions().Labels.String())
		}
	}
	if len(selectors) == 0 {
		t.Error("nothing was selected")
	}
	for _, s := range selectors {
		if s != "kubernetes.io/service-name=kubernetes" {
			t.Errorf("selected %q", s)
		}
	}
}
