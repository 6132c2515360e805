package apiwatch_test

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/apiwatch/apitest"
	"varco.dev/internal/service"
)

// sink is a table that can be waited for.
type sink struct {
	mu      sync.Mutex
	table   *service.Table
	node    apiwatch.Node
	updates int
	changed chan struct{}
}

func (s *sink) update(fn func(*service.Table)) {
	s.mu.Lock()
	fn(s.table)
	s.updates++
	s.mu.Unlock()
	s.signal()
}

func (s *sink) setNode(n apiwatch.Node) {
	s.mu.Lock()
	s.node = n
	s.mu.Unlock()
	s.signal()
}

func (s *sink) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// wait returns when the ports of the table are as wanted: "name→backend,backend …".
func (s *sink) wait(t *testing.T, want string) { s.waitFor(t, want, s.describe) }

// waitFor returns when what is described is as wanted.
func (s *sink) waitFor(t *testing.T, want string, describe func() string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		got := describe()
		if got == want {
			return
		}
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func (s *sink) describe() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Changes()
	var out []string
	for _, c := range s.table.All().Ports {
		var backends []string
		for _, b := range c.New.Cluster {
			backends = append(backends, b.Addr.String())
		}
		out = append(out, c.New.Key.Service.Name+"→"+strings.Join(backends, ","))
	}
	return strings.Join(out, " ")
}

func svc(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func slice(name, owner string, ips ...string) *discoveryv1.EndpointSlice {
	port, none := int32(8080), ""
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "x", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: owner}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &none, Port: &port}},
	}
	for _, ip := range ips {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}})
	}
	return s
}

// watch runs a watcher until it knows all objects. The function returned ends it.
func watch(t *testing.T, client kubernetes.Interface, adjust ...func(*apiwatch.Config)) (s *sink, end func()) {
	t.Helper()
	s = &sink{table: service.NewTable("node-1"), changed: make(chan struct{}, 1)}
	config := apiwatch.Config{
		Client: client, NodeName: "node-1", Update: s.update, Node: s.setNode, Log: slog.New(slog.DiscardHandler),
	}
	for _, a := range adjust {
		a(&config)
	}
	w := apiwatch.New(config)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-w.Synced()
	return s, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v at the end of its context", err)
		}
	}
}

func TestWatcherFollowsObjects(t *testing.T) {
	client := fake.NewClientset(svc("a", "10.96.0.1"), slice("a-1", "a", "10.244.0.1"), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.240.0.11"}}},
	})
	s, end := watch(t, client)
	// All that was there at the start is in the table by then.
	if got := s.describe(); got != "a→10.244.0.1:8080" {
		t.Errorf("once synced: got %q", got)
	}
	if want := []netip.Addr{netip.MustParseAddr("10.240.0.11")}; !slices.Equal(s.node.Addrs, want) {
		t.Errorf("once synced: got node addresses %v", s.node)
	}

	apitest.AwaitWatches(t, &client.Fake, 0, "services", "endpointslices")
	services, slices := client.CoreV1().Services("x"), client.DiscoveryV1().EndpointSlices("x")
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(slices.Create(t.Context(), slice("a-2", "a", "10.244.0.2"), metav1.CreateOptions{}))
	s.wait(t, "a→10.244.0.1:8080,10.244.0.2:8080")
	do(services.Create(t.Context(), svc("b", "10.96.0.2"), metav1.CreateOptions{}))
	s.wait(t, "a→10.244.0.1:8080,10.244.0.2:8080 b→")
	do(slices.Update(t.Context(), slice("a-2", "b", "10.244.0.2"), metav1.UpdateOptions{})) // the slice changes hands
	s.wait(t, "a→10.244.0.1:8080 b→10.244.0.2:8080")
	alias := svc("a", "10.96.0.1")
	alias.Spec.Type = corev1.ServiceTypeExternalName
	do(services.Update(t.Context(), alias, metav1.UpdateOptions{}))
	s.wait(t, "b→10.244.0.2:8080")
	do(nil, slices.Delete(t.Context(), "a-2", metav1.DeleteOptions{}))
	s.wait(t, "b→")
	do(nil, services.Delete(t.Context(), "b", metav1.DeleteOptions{}))
	s.wait(t, "")

	end()
}

// TestWatcherAsksForWhatIsItsOwn looks at the selectors of lists: Services and slices of other proxies, headless ones and
// other nodes are left to the server to leave out.
func TestWatcherAsksForWhatIsItsOwn(t *testing.T) {
	client := fake.NewClientset()
	_, end := watch(t, client)
	end()
	got := map[string]string{}
	for _, a := range client.Actions() {
		if l, ok := a.(clienttesting.ListAction); ok {
			r := l.GetListRestrictions()
			got[a.GetResource().Resource] = r.Labels.String() + " " + r.Fields.String()
		}
	}
	want := map[string]string{
		"services":       "!service.kubernetes.io/service-proxy-name spec.clusterIP!=None",
		"endpointslices": "!service.kubernetes.io/headless ",
		"nodes":          " metadata.name=node-1",
		"servicecidrs":   " ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
