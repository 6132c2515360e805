package locate_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

var _ locate.Objects = (*directory.Directory)(nil)

var errBroken = errors.New("the API server is broken")

// world is a directory that a test fills. What it has handed out is not changed: tests put new objects.
type world struct {
	mu       sync.Mutex
	broken   bool          // it cannot ask about pods
	hang     bool          // it waits for pods until the context ends
	behind   bool          // the watch knows no Service yet
	slow     chan struct{} // it waits for this before it tells of a Service
	asked    int           // Services computed from it
	version  uint64
	services map[service.Name]*directory.Service
	slices   map[service.Name][]*directory.Slice
	pods     map[service.Name]*directory.Pod
	nodes    map[string]*directory.Node
}

func newWorld(objects ...any) *world {
	w := &world{
		services: map[service.Name]*directory.Service{}, slices: map[service.Name][]*directory.Slice{},
		pods: map[service.Name]*directory.Pod{}, nodes: map[string]*directory.Node{},
	}
	for _, o := range objects {
		w.put(o)
	}
	return w
}

// put adds or replaces an object.
func (w *world) put(object any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := object.(type) {
	case *directory.Service:
		w.services[o.Name] = o
	case *directory.Slice:
		old := slices.Clone(w.slices[o.Service])
		w.slices[o.Service] = append(slices.DeleteFunc(old, func(s *directory.Slice) bool { return s.Name == o.Name }), o)
	case *directory.Pod:
		w.pods[o.Name] = o
	case *directory.Node:
		w.nodes[o.Name] = o
	default:
		panic("not an object of the directory")
	}
	w.version++
}

// Service may wait, unlocked.
func (w *world) Service(ctx context.Context, name service.Name) (*directory.Service, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.slow != nil {
		w.mu.Unlock()
		<-w.slow
		w.mu.Lock()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return get(w.services, name, "services", name.Name)
}

func (w *world) Slices(name service.Name) []*directory.Slice {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slices[name]
}

func (w *world) Version(name service.Name) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.services[name] == nil || w.behind {
		return 0
	}
	return w.version
}

func (w *world) Pod(ctx context.Context, name service.Name) (*directory.Pod, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if w.broken {
		return nil, errBroken
	}
	return get(w.pods, name, "pods", name.Name)
}

func (w *world) Node(_ context.Context, name string) (*directory.Node, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return get(w.nodes, name, "nodes", name)
}

func get[K comparable, V any](of map[K]*V, key K, resource, name string) (*V, error) {
	if o := of[key]; o != nil {
		return o, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

// parsed returns the address of an ID, in namespace "ns".
func parsed(t testing.TB, kind address.Kind, id string) address.Address {
	t.Helper()
	object := "/namespaces/ns/" + kind.Resource()
	if kind == address.Node {
		object = "/nodes"
	}
	a, ok, err := address.Parse("/api/v1", "/api/v1"+object+"/"+id+"/proxy")
	if !ok || err != nil {
		t.Fatalf("%s %q: ok %t, error %v", kind, id, ok, err)
	}
	return a
}

// find locates an ID in namespace "ns".
func find(t testing.TB, l *locate.Locator, kind address.Kind, id string) (*locate.Destination, error) {
	t.Helper()
	return l.Locate(t.Context(), parsed(t, kind, id))
}

// url is how a destination with one target would be reached.
func url(d *locate.Destination) string {
	if d.Host != "" {
		return d.Scheme + "://" + d.Host
	}
	return d.Scheme + "://" + d.Endpoints[0].Addr.String()
}

// addrs returns the addresses of the endpoints, those that drain with a "-".
func addrs(d *locate.Destination) (out []string) {
	for _, e := range d.Endpoints {
		s := e.Addr.String()
		if e.Draining {
			s = "-" + s
		}
		out = append(out, s)
	}
	return out
}

// refused fails unless an error is one of the API with a code and a text.
func refused(t testing.TB, what string, err error, code int32, text string) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Errorf("%s: error %v is none of the API", what, err)
		return
	}
	if s := status.Status(); s.Code != code || s.Message != text {
		t.Errorf("%s: %d %q, want %d %q", what, s.Code, s.Message, code, text)
	}
}

func in(name string) service.Name { return service.Name{Namespace: "ns", Name: name} }

func ips(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// newPod returns a pod of namespace "ns" with addresses.
func newPod(name string, addresses ...string) *directory.Pod {
	return &directory.Pod{Name: in(name), UID: "uid-" + name, Addrs: ips(addresses...)}
}

// ready is an endpoint of a pod that is ready.
func ready(addr, pod string) directory.Endpoint {
	return directory.Endpoint{Addr: netip.MustParseAddr(addr), Ready: true, Serving: true, Pod: in(pod)}
}

func notReady(addr, pod string) directory.Endpoint {
	return directory.Endpoint{Addr: netip.MustParseAddr(addr), Pod: in(pod)}
}

func draining(addr, pod string) directory.Endpoint {
	return directory.Endpoint{Addr: netip.MustParseAddr(addr), Serving: true, Terminating: true, Pod: in(pod)}
}

// newSlice returns a slice of a Service with one TCP port. The family is that of the first endpoint.
func newSlice(of, name, port string, number uint16, es ...directory.Endpoint) *directory.Slice {
	family := service.IPv4
	if len(es) > 0 {
		family = service.FamilyOf(es[0].Addr)
	}
	return &directory.Slice{Name: in(name), Service: in(of), Family: family, Endpoints: es,
		Ports: []directory.SlicePort{{Name: port, Number: number, Protocol: service.TCP}}}
}

// newService returns a Service of the family IPv4 with TCP ports.
func newService(name string, ports ...directory.ServicePort) *directory.Service {
	for i := range ports {
		ports[i].Protocol = service.TCP
	}
	return &directory.Service{Name: in(name), UID: "uid-" + name, Ports: ports,
		Families: []service.Family{service.IPv4}}
}

func port(name string, number uint16) directory.ServicePort {
	return directory.ServicePort{Name: name, Number: number}
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// compared lets go-cmp compare addresses.
func compared() cmp.Option { return cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }) }
