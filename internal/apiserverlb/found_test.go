package apiserverlb_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiserverlb/config"
)

// slicesOf have the API server at seed name these servers as those of the cluster.
func slicesOf(t *testing.T, seed *server, servers ...*server) {
	t.Helper()
	for _, s := range servers {
		host, port, err := net.SplitHostPort(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(port)
		number, name := int32(n), "https"
		seed.api.Set("endpointslices", &discoveryv1.EndpointSlice{
			TypeMeta:    metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "kubernetes-" + port, Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{host}}},
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &number}},
		}, false)
	}
}

// kubeconfig is one of an address that is not ours: what reads it has to go through the balancer.
func kubeconfig(t *testing.T, ca string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}], users: [{name: x, user: {}}],
  clusters: [{name: x, cluster: {server: "https://example.com:1", certificate-authority: %q}}]}`, ca)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSlicesThroughItself has the servers named by EndpointSlices, which are read through the balancer's own listener, and
// then begins anew with nothing but what it has kept of that.
func TestSlicesThroughItself(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // is not for us
	seed, second, third := startServer(t), startServer(t), startServer(t)
	slicesOf(t, seed, seed, second)
	c := settings(t, seed)
	c.Backends.Kubernetes.Kubeconfig = kubeconfig(t, c.Health.CAFile)
	c.Backends.CacheFile = filepath.Join(t.TempDir(), "cache.json")
	c.Complete()
	b := start(t, c, seed)
	b.await("the slices count", 10*time.Second, func() bool { return b.state(second).Source == "kubernetes" && b.state(seed).Source == "kubernetes" })
	slicesOf(t, seed, third)
	b.await("a server that is new is found", 10*time.Second, func() bool { return b.state(third).State == "Up" })
	renewed, err := os.ReadFile(c.Backends.Kubernetes.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	asked := seed.api.Requests("endpointslices")
	if err := os.WriteFile(c.Backends.Kubernetes.Kubeconfig, append(renewed, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	b.await("the slices are watched by the kubeconfig that is new", 20*time.Second, func() bool { return seed.api.Requests("endpointslices") > asked })
	if b.Status().Accepted == 0 {
		t.Error("the slices were not read through the own listener")
	}
	b.end()

	seed.CloseClientConnections()
	seed.Close()
	again := settings(t, second)
	again.Health.CAFile = c.Health.CAFile
	again.Backends = c.Backends
	b = start(t, again, second)
	if s := b.Status().Sources; len(s) != 1 || s[0].Error == "" || s[0].Addresses != 3 {
		t.Errorf("sources that have not answered: %+v", s)
	}
	for range 10 {
		if addr, err := b.once(); err != nil || addr != second.addr && addr != third.addr {
			t.Errorf("with the only seed dead: %q, %v", addr, err)
		}
	}
	if from := b.state(third).Source; from != "cache" {
		t.Errorf("found by %q", from)
	}
}

// TestListenerBecomesOwn opens a listener at the address of a backend, at all addresses: the balancer must not be its own
// backend.
func TestListenerBecomesOwn(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	free := settings(t, s).Listeners[0].Address
	c.Backends.Static = append(c.Backends.Static, config.Static{Address: free})
	b := start(t, c, s)
	if n := len(b.Status().Backends); n != 2 {
		t.Fatalf("%d backends", n)
	}
	c.Listeners = append(c.Listeners, config.Listener{Name: "new", Address: free})
	c.Complete()
	if err := b.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	b.await("the balancer is no backend of its own", 5*time.Second, func() bool { return len(b.Status().Backends) == 1 })
}
