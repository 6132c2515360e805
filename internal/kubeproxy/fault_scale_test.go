package kubeproxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// huge is a Service of 100 slices with 1,000 endpoints each.
func huge(balance string) (out []apiruntime.Object) {
	svc := serviceAt("huge", "10.96.0.9")
	svc.Annotations = map[string]string{apiwatch.AnnotationBalance: balance}
	out = append(out, svc)
	for i := range 100 {
		out = append(out, hugeSlice(i, 0))
	}
	return out
}

// hugeSlice is one of them; shift moves its first endpoint to another address.
func hugeSlice(i, shift int) *discoveryv1.EndpointSlice {
	var ips []string
	for j := range 1000 {
		n := 1000*i + j
		ips = append(ips, fmt.Sprintf("10.%d.%d.%d", 100+n>>16, n>>8&0xff, n&0xff))
	}
	if shift > 0 {
		ips[0] = fmt.Sprintf("10.120.0.%d", shift)
	}
	s := sliceOf("huge", 8080, ips...)
	s.Name = fmt.Sprintf("huge-%d", i)
	return s
}

// TestHugeService has 100,000 endpoints: as many are served as the kernel's numbers allow, in a bounded time, and a change
// of one writes what changed alone.
func TestHugeService(t *testing.T) {
	for _, balance := range []string{"random", "hash-source-ip"} {
		t.Run(balance, func(t *testing.T) {
			s := newSole(t, false)
			s.api.set(serviceAt("one", "10.96.0.1"), sliceOf("one", portOfA, soleAddr4))
			s.api.set(huge(balance)...)
			began := time.Now()
			r := s.run()
			defer r.stop()
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("the first time took %s", took)
			}
			s.served(r, "10.96.0.1", "a")
			c, err := s.look.Read(t.Context())
			s.must(err)
			slots := 0
			for _, e := range c.Elements {
				if e.Set == nft.Endpoints {
					slots++
				}
			}
			if slots != nft.MaxBackends+1 {
				t.Errorf("%d endpoints are served, want %d, and that of the other Service", slots, nft.MaxBackends)
			}
			s.must(whole(c))

			elements := r.kernel.elements.Load()
			began = time.Now()
			s.api.set(hugeSlice(3, 1), serviceAt("last", "10.96.0.2"), sliceOf("last", portOfA+1, soleAddr4))
			s.served(r, "10.96.0.2", "b")
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("a change took %s", took)
			}
			if n := r.kernel.elements.Load() - elements; balance == "random" && n > 20 {
				t.Errorf("a change of one endpoint and one Service wrote %d elements", n)
			}
			if line := r.log.await(t, "more endpoints than can be served"); !strings.Contains(line, "served=65535 others=34465") {
				t.Errorf("logged %s", line)
			}
			if status, err := r.proxy.Status(t.Context()); err != nil || len(status.Problems) != 1 || !strings.Contains(status.Problems[0], "34465 are left out") {
				t.Errorf("problems %q, error %v", status.Problems, err)
			}
		})
	}
}

// garbage are objects that no API server should let pass, and that are not to harm others.
func garbage() (out []apiruntime.Object) {
	long := strings.Repeat("x", 100_000)
	tcp, none := corev1.ProtocolTCP, ""
	negative, port := int32(-1), int32(8080)
	add := func(name string, fn func(*corev1.Service, *discoveryv1.EndpointSlice)) {
		svc, slice := serviceAt(name, "10.96.3."+fmt.Sprint(1+len(out)/2)), sliceOf(name, 8080, "10.244.0.1")
		svc.Annotations, slice.Annotations = map[string]string{}, map[string]string{}
		fn(svc, slice)
		out = append(out, svc, slice)
	}
	add("empty", func(svc *corev1.Service, slice *discoveryv1.EndpointSlice) {
		svc.Spec, slice.Ports, slice.Endpoints = corev1.ServiceSpec{}, nil, nil
	})
	add("nil", func(svc *corev1.Service, slice *discoveryv1.EndpointSlice) {
		svc.Spec.SessionAffinity, svc.Spec.Ports = corev1.ServiceAffinityClientIP, []corev1.ServicePort{{}}
		slice.Ports = []discoveryv1.EndpointPort{{}, {Name: &none}, {Port: &negative}, {Name: &none, Port: &port}, {Name: &none, Port: &port, Protocol: &tcp}}
		slice.Endpoints = []discoveryv1.Endpoint{{}, {Addresses: []string{}}, {Addresses: []string{""}, Hints: &discoveryv1.EndpointHints{}}}
	})
	add("addresses", func(svc *corev1.Service, slice *discoveryv1.EndpointSlice) {
		svc.Spec.ClusterIPs = []string{"999.1.1.1", "::g", long, "224.0.0.1", "fe80::1%eth0"}
		svc.Spec.ExternalIPs = []string{"0.0.0.0", "127.0.0.1", "255.255.255.255", "1", "::", "224.0.0.1", long}
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: long}, {IP: "127.0.0.1"}, {}}
		slice.Endpoints = []discoveryv1.Endpoint{
			{Addresses: []string{long}}, {Addresses: []string{"127.0.0.1"}}, {Addresses: []string{"169.254.1.1"}}, {Addresses: []string{"224.0.0.1"}},
		}
	})
	add("ports", func(svc *corev1.Service, _ *discoveryv1.EndpointSlice) {
		svc.Spec.Ports = nil
		for _, p := range []int32{0, -1, 65536, 1 << 30, -1 << 31} {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Port: p, NodePort: p}, corev1.ServicePort{Port: 80, NodePort: p, Protocol: "GRE"})
		}
	})
	add("names", func(svc *corev1.Service, slice *discoveryv1.EndpointSlice) {
		svc.Spec.Ports[0].Name, slice.Ports[0].Name = long, &long
		slice.Endpoints[0].NodeName, slice.Endpoints[0].Zone = &long, &long
		slice.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: long}, {}}, ForNodes: []discoveryv1.ForNode{{}}}
	})
	add("annotations", func(svc *corev1.Service, slice *discoveryv1.EndpointSlice) {
		svc.Annotations[apiwatch.AnnotationBalance] = long
		svc.Annotations[apiwatch.AnnotationWeights] = strings.Repeat("10.244.0.1=1,=,,node/=,zone/x=-1,"+long[:50]+"=99999999999,", 1000)
		slice.Annotations[corev1.EndpointsLastChangeTriggerTime] = "0000-00-00T99:99:99Z"
	})
	add("numbers", func(svc *corev1.Service, slice *discoveryv1.EndpointSlice) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &negative}}
		svc.Spec.Type, svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 1<<30
		svc.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/33", "x", long, "::ffff:10.0.0.0/104", "1.2.3.4/0"}
		slice.Annotations[corev1.EndpointsLastChangeTriggerTime] = "9999-12-31T23:59:59Z"
	})
	return out
}

// TestGarbage has a proxy be told nonsense, at the start and while it runs. It serves the rest, and says what it left out
// in lines that a log can bear.
func TestGarbage(t *testing.T) {
	s := newSole(t, false)
	s.api.set(serviceAt("one", "10.96.0.1"), sliceOf("one", portOfA, soleAddr4))
	s.api.set(garbage()...)
	r := s.run()
	defer r.stop()
	s.served(r, "10.96.0.1", "a")
	for range 3 {
		for _, obj := range garbage() {
			s.api.delete(obj)
		}
		s.api.set(garbage()...)
	}
	s.api.set(serviceAt("two", "10.96.0.2"), sliceOf("two", portOfA+1, soleAddr4))
	s.served(r, "10.96.0.2", "b")
	s.expect(10 * time.Second)
	r.log.await(t, "leaves out a part of an object that is not valid")
	r.proxyIsWell(t, "")
	text, _ := r.log.all()
	const most = 16 << 10 // bytes of a line
	for line := range strings.Lines(text) {
		if len(line) > most {
			t.Errorf("a line of %d bytes is logged: %.300s", len(line), line)
		}
	}
}

// ourGoroutines are those of the product and of the libraries that it has work for it, as stacks.
func ourGoroutines() (out []string) {
	ours := regexp.MustCompile(`(?m)^(created by )?(varco\.dev/internal/(kubeproxy|apiwatch|reconcile|observe|kernel|service)[./]|k8s\.io/client-go/tools/)`)
	buf := make([]byte, 16<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if ours.MatchString(stack) {
			out = append(out, stack)
		}
	}
	return out
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestFootprint counts the goroutines and descriptors of a proxy that serves 1,000 Services, while it runs and after its
// end. Their numbers do not depend on that of the Services.
func TestFootprint(t *testing.T) {
	const (
		mostGoroutines  = 60
		mostDescriptors = 30
	)
	s := newSole(t, false)
	s.api.set(many(1000)...)
	before := descriptors(t)
	eventually(t, 20*time.Second, func() string { // those of the tests before
		return strings.Join(ourGoroutines(), "\n\n")
	})
	r := s.run()
	s.expect(10 * time.Second)
	if _, err := r.proxy.Status(t.Context()); err != nil {
		t.Error(err)
	}
	goroutines, files := len(ourGoroutines()), descriptors(t)-before
	t.Logf("%d goroutines, %d descriptors", goroutines, files)
	if goroutines > mostGoroutines || files > mostDescriptors {
		t.Errorf("%d goroutines, at most %d wanted; %d descriptors, at most %d wanted", goroutines, mostGoroutines, files, mostDescriptors)
	}
	if goroutines < 10 {
		t.Errorf("only %d goroutines are taken for those of the proxy", goroutines)
	}
	r.stop()
	s.api.stop() // with it end the connections to it
	eventually(t, 10*time.Second, func() string {
		if left := ourGoroutines(); len(left) > 0 {
			return fmt.Sprintf("%d goroutines are left\n%s", len(left), strings.Join(left, "\n\n"))
		}
		return ""
	})
}

// tallyKernel is a kernel that counts what it is told and keeps nothing.
type tallyKernel struct {
	commits, elements int
	done              chan struct{}
}

func (k *tallyKernel) Commit(_ context.Context, tx nft.Transaction) error {
	k.commits++
	k.elements += len(tx.Add) + len(tx.Delete)
	k.done <- struct{}{}
	return nil
}

func (k *tallyKernel) Read(context.Context) (nft.Content, error) { return nft.Content{}, nil }

// cost is what a change of one endpoint takes, all the way from the object to the transaction.
type cost struct{ Commits, Elements, Allocs, Bytes int }

// costOfChange measures it among so many Services.
func costOfChange(t *testing.T, services int) cost {
	t.Helper()
	k := &tallyKernel{done: make(chan struct{}, 1)}
	table, start := service.NewTable("node-1"), make(chan struct{})
	set(table, append(many(services), soleNode()))
	loop := reconcile.New(reconcile.Config{
		Table: table, Plane: nft.New(counted{k}), Start: start, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	close(start)
	<-k.done
	const changes = 100
	one := many(services / 2)[services-1].(*discoveryv1.EndpointSlice)
	change := func(i int) {
		obj := one.DeepCopy()
		obj.Endpoints[0].Addresses[0] = netip.AddrFrom4([4]byte{10, 247, 0, byte(1 + i)}).String()
		s, _, _ := apiwatch.Slice(obj)
		loop.Update(func(t *service.Table) { t.SetSlice(s) })
		<-k.done
	}
	change(changes)
	commits, elements := k.commits, k.elements
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range changes {
		change(i)
	}
	runtime.ReadMemStats(&after)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return cost{(k.commits - commits) / changes, (k.elements - elements) / changes, int(after.Mallocs-before.Mallocs) / changes, int(after.TotalAlloc-before.TotalAlloc) / changes}
}

// TestCostOfChangeIsFlat: what a change costs does not depend on how many Services there are.
func TestCostOfChangeIsFlat(t *testing.T) {
	few, many := costOfChange(t, 1000), costOfChange(t, 10_000)
	t.Logf("at 1,000 Services %+v, at 10,000 %+v", few, many)
	if want := (cost{1, 2, few.Allocs, few.Bytes}); few != want {
		t.Errorf("a change costs %+v, want one transaction that takes one element away and adds one", few)
	}
	const noise, noiseBytes, most = 20, 4096, 400
	if max(many.Allocs, few.Allocs) > most || many.Allocs-few.Allocs > noise || many.Bytes-few.Bytes > noiseBytes {
		t.Errorf("a change takes %d allocations and %d bytes at 1,000 Services, %d and %d at 10,000", few.Allocs, few.Bytes, many.Allocs, many.Bytes)
	}
	many.Allocs, many.Bytes = few.Allocs, few.Bytes
	if diff := cmp.Diff(few, many); diff != "" {
		t.Errorf("the cost of a change (-1,000 Services +10,000)\n%s", diff)
	}
}
