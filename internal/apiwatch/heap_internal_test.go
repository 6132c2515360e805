package apiwatch

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/service"
)

// objects are Services of one port with two endpoints each, like those that an API server sends.
func objects(n int) (services, slices []any) {
	for i := range n {
		name := fmt.Sprintf("service-%05d", i)
		ip := fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)
		single := corev1.IPFamilyPolicySingleStack
		internal := corev1.ServiceInternalTrafficPolicyCluster
		services = append(services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: string([]byte("namespace-1")), Name: name, UID: "0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b", CreationTimestamp: metav1.Unix(1, 0)},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
				IPFamilyPolicy: &single, InternalTrafficPolicy: &internal, SessionAffinity: corev1.ServiceAffinityNone,
				Ports: []corev1.ServicePort{{Name: string([]byte("http")), Protocol: corev1.ProtocolTCP, Port: 80}},
			},
		})
		port, tcp, http, yes, no := int32(8080), corev1.ProtocolTCP, string([]byte("http")), true, false
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: string([]byte("namespace-1")), Name: name + "-abcde", Labels: map[string]string{discoveryv1.LabelServiceName: string([]byte(name))}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &http, Port: &port, Protocol: &tcp}},
		}
		for j := range 2 {
			node, zone := fmt.Sprintf("worker-%d", (i+j)%100), fmt.Sprintf("zone-%d", (i+j)%3)
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 128+j, i/250, i%250+1)}, NodeName: &node, Zone: &zone,
				Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			})
		}
		slices = append(slices, s)
	}
	return services, slices
}

// heap returns how many bytes are in use.
func heap() int {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Budgets for 10,000 Services of two endpoints. Objects as an informer keeps them would take 35 MB.
const (
	heapBudget   = 18 << 20 // measured: 15 MB
	relistBudget = 12 << 20 // bytes allocated when all are listed again; measured: 10 MB
)

// TestHeap lists 10,000 Services twice and counts what is kept and what is thrown away.
func TestHeap(t *testing.T) {
	before := heap()
	table := service.NewTable("worker-1")
	w := New(Config{Update: func(fn func(*service.Table)) { fn(table) }, Log: slog.New(slog.DiscardHandler)})
	list := func() (allocated int) {
		services, slices := objects(10000)
		var from, to runtime.MemStats
		runtime.ReadMemStats(&from)
		if err := errors.Join(w.serviceSink().Store().Replace(services, ""), w.sliceSink().Store().Replace(slices, "")); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&to)
		return int(to.TotalAlloc - from.TotalAlloc)
	}
	list()
	if c := table.Changes(); len(c.Ports) != 10000 {
		t.Fatalf("got %d ports", len(c.Ports))
	}
	if kept := heap() - before; kept > heapBudget {
		t.Errorf("keeps %d bytes, budget %d", kept, heapBudget)
	}
	allocated := list()
	if allocated > relistBudget {
		t.Errorf("listing the same again allocates %d bytes, budget %d", allocated, relistBudget)
	}
	if c := table.Changes(); !c.Empty() || len(c.Triggers) > 0 {
		t.Error("listing the same again changes something")
	}
	kept := heap() - before
	if kept > heapBudget {
		t.Errorf("keeps %d bytes after a second list, budget %d", kept, heapBudget)
	}
	t.Logf("keeps %d bytes; a list of the same allocates %d", kept, allocated)
	runtime.KeepAlive(table)
}
