package directory_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
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

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID("uid-" + name)}
}

func svc(name string, ports ...int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: p})
	}
	return s
}

func pod(name string, ips ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta(name), Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

func node(name string, addrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = 10250
	return n
}

// slice has an endpoint for each "pod=address".
func slice(name, owner string, endpoints ...string) *discoveryv1.EndpointSlice {
	port, none := int32(8080), ""
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: meta(name), AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &none, Port: &port}},
	}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: owner}
	for _, e := range endpoints {
		pod, ip, _ := strings.Cut(e, "=")
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "x", Name: pod},
		})
	}
	return s
}

func x(name string) service.Name { return service.Name{Namespace: "x", Name: name} }

// follow runs a directory until it knows all objects, and ends it with the test.
func follow(t *testing.T, client kubernetes.Interface, log *slog.Logger) *directory.Directory {
	t.Helper()
	d := directory.New(directory.Config{Client: client, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v at the end of its context", err)
		}
	})
	<-d.Synced()
	return d
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// until waits until the description is as wanted.
func until(t *testing.T, want string, describe func() string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if got = describe(); got == want {
			return
		}
		time.Sleep(time.Millisecond) // a directory gives no sign of a change
	}
	t.Fatalf("got %q, want %q", got, want)
}

// endpoints describes what is behind Services: "a→pod=address,… b→".
func endpoints(d *directory.Directory, names ...string) func() string {
	return func() string {
		var out []string
		for _, name := range names {
			var all []string
			for _, s := range d.Slices(x(name)) {
				for _, e := range s.Endpoints {
					all = append(all, e.Pod.Name+"="+e.Addr.String())
				}
			}
			out = append(out, name+"→"+strings.Join(all, ","))
		}
		return strings.Join(out, " ")
	}
}

// podAddrs describes pods: "a=[address …]", or the reason why there is none.
func podAddrs(t *testing.T, d *directory.Directory, names ...string) func() string {
	return func() string {
		var out []string
		for _, name := range names {
			p, err := d.Pod(t.Context(), x(name))
			if err != nil {
				out = append(out, fmt.Sprint(err))
				continue
			}
			out = append(out, fmt.Sprint(p.Name.Name, "=", p.Addrs))
		}
		return strings.Join(out, " ")
	}
}

func ports(t *testing.T, d *directory.Directory, name string) func() string {
	return func() string {
		s, err := d.Service(t.Context(), x(name))
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, p := range s.Ports {
			out = append(out, fmt.Sprint(p.Number))
		}
		return strings.Join(out, " ")
	}
}

func nodeAddrs(t *testing.T, d *directory.Directory, name string) func() string {
	return func() string {
		n, err := d.Node(t.Context(), name)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(n.Addrs, n.KubeletPort)
	}
}
