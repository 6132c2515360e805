package directory

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

const (
	manyPods  = 150_000
	perSlice  = 100
	heapLimit = 60 << 20 // for the pods; measured: 52 MiB
	allLimit  = 90 << 20 // and the slices of all of them too; measured: 79 MiB
	// relistLimit is for what is in use while all are listed again, before the list is let go; measured: 96 MiB.
	relistLimit = 110 << 20
)

func podName(i int) string { return fmt.Sprintf("deployment-%04d-6d4b75cb6d-%05d", i/perSlice, i) }

func podIP(i int) string { return fmt.Sprintf("10.%d.%d.%d", 128+i/62500, i/250%250, i%250+1) }

// manyPod is like those that an API server sends, but for the many fields that nobody reads.
func manyPod(i int) *corev1.Pod {
	text := func(s string) string { return string([]byte(s)) } // in memory of its own, as decoders make them
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: text("namespace-1"), Name: podName(i), UID: types.UID(fmt.Sprintf("0b0b0b0b-0b0b-0b0b-0b0b-%012d", i)),
			Labels: map[string]string{"app": text("deployment")},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Image: text("registry.example/image:v1"),
			Ports: []corev1.ContainerPort{{Name: text("http"), ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {Name: text("metrics"), ContainerPort: 9090}},
		}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: podIP(i),
			PodIPs: []corev1.PodIP{{IP: podIP(i)}, {IP: fmt.Sprintf("fd00::%x:%x", i>>16, i&0xffff)}},
		},
	}
}

func manySlice(i int) *discoveryv1.EndpointSlice {
	port, tcp, http, yes, no := int32(8080), corev1.ProtocolTCP, string([]byte("http")), true, false
	name := fmt.Sprintf("deployment-%04d", i)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "namespace-1", Name: name + "-abcde", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &http, Port: &port, Protocol: &tcp}},
	}
	for j := range perSlice {
		n := i*perSlice + j
		node, zone := fmt.Sprintf("worker-%d", n%5000), fmt.Sprintf("zone-%d", n%3)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{podIP(n)}, NodeName: &node, Zone: &zone,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "namespace-1", Name: podName(n)},
		})
	}
	return s
}

// heap returns how many bytes are in use.
func heap() int {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestHeap has as many pods as Kubernetes is made for, as a reflector hands them on: each is converted while it streams in.
func TestHeap(t *testing.T) {
	before := heap()
	d := New(Config{Log: slog.New(slog.DiscardHandler)})
	d.source = feed.NewSource(nil, d.config.Log)
	podStore, sliceStore := d.podSink().Store(), d.sliceSink().Store()
	listPods := func() (peak int) {
		all, convert := make([]any, 0, manyPods), podStore.Transformer()
		for i := range manyPods {
			item, err := convert(manyPod(i))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, item)
		}
		peak = heap() - before
		if err := podStore.Replace(all, ""); err != nil {
			t.Fatal(err)
		}
		return peak
	}
	check := func(what string, got, limit int) {
		t.Helper()
		if t.Logf("%s: %.1f MiB", what, float64(got)/(1<<20)); got > limit {
			t.Errorf("%s: %d bytes in use, the limit is %d", what, got, limit)
		}
	}
	listPods()
	check("150,000 pods", heap()-before, heapLimit)
	for i := range manyPods / perSlice {
		if err := sliceStore.Add(manySlice(i)); err != nil {
			t.Fatal(err)
		}
	}
	check("with their slices", heap()-before, allLimit)
	check("while all are listed again", listPods(), relistLimit)
	check("once more", heap()-before, allLimit)
	if p := d.pods.get(service.Name{Namespace: "namespace-1", Name: podName(manyPods - 1)}); p == nil || len(p.Ports) != 2 || d.pods.there != manyPods {
		t.Errorf("knows %d pods, of the last one %+v", d.pods.there, p)
	}
	runtime.KeepAlive(d)
}

// BenchmarkLookups does what a request does for a Service that is known, all cores at once.
func BenchmarkLookups(b *testing.B) {
	d := New(Config{Log: slog.New(slog.DiscardHandler)})
	close(d.synced)
	for i := range 20_000 {
		e, _ := entryOf(manyPod(i))
		d.pods.set(e)
	}
	for i := range 200 {
		s, _, _ := SliceOf(manySlice(i))
		d.services.setSlice(s)
		d.services.setService(&Service{Name: s.Service})
	}
	owner := service.Name{Namespace: "namespace-1", Name: "deployment-0007"}
	for name, fn := range map[string]func() bool{
		"version": func() bool { return d.Version(owner) != 0 },
		"service": func() bool { s, err := d.Service(b.Context(), owner); return s != nil && err == nil },
		"slices":  func() bool { return len(d.Slices(owner)) == 1 },
		"pod": func() bool {
			p, err := d.Pod(b.Context(), service.Name{Namespace: "namespace-1", Name: "deployment-0007-6d4b75cb6d-00701"})
			return p != nil && err == nil
		},
		"apiservers": func() bool { return d.APIServers() != nil },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if !fn() {
						b.Error("not found")
						return
					}
				}
			})
		})
	}
}

// BenchmarkSliceChange changes a slice of 100 endpoints.
func BenchmarkSliceChange(b *testing.B) {
	d := New(Config{Log: slog.New(slog.DiscardHandler)})
	one, two := manySlice(1), manySlice(1)
	two.Endpoints = two.Endpoints[1:]
	for i := 0; b.Loop(); i++ {
		s, _, _ := SliceOf([]*discoveryv1.EndpointSlice{one, two}[i%2])
		d.services.setSlice(s)
	}
}
