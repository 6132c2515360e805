package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/cluster"
	"varco.dev/lab/internal/demo"
	"varco.dev/lab/internal/load"
)

// patience bounds each wait for the cluster to come to a state.
const patience = 60 * time.Second

// lab is a cluster of two nodes whose Services are served by varco kube-proxy.
type lab struct {
	*cluster.Cluster
	client kubernetes.Interface
	varco  string // path of the binary
}

// TestLab runs the real parts from end to end: the demo, and the faults that it does not show.
func TestLab(t *testing.T) {
	nettest.NeedRoot(t)
	l := up(t)
	steps := []struct {
		name string
		test func(*testing.T)
	}{
		{"demo", l.demo},
		{"varco kube-proxy killed", l.killedProxy},
		{"API server away", l.withoutAPIServer},
		{"bad objects", l.badObjects},
	}
	for _, s := range steps {
		if !t.Run(s.name, s.test) {
			return // the next would only repeat what is wrong
		}
	}
}

// up builds both binaries and starts the lab, for the time of the test.
func up(t *testing.T) *lab {
	dir := t.TempDir()
	build(t, dir, "..", "./cmd/varco")
	build(t, dir, ".", ".")
	l := &lab{varco: filepath.Join(dir, "varco")}
	conf := cluster.Config{
		Dir: filepath.Join(dir, "lab"), Nodes: 2, Binary: filepath.Join(dir, "lab.bin"), Images: []string{"varco=" + l.varco},
	}
	if err := os.Rename(filepath.Join(dir, "lab"), conf.Binary); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			cluster.WriteLogs(t.Output(), conf.Dir)
		}
		if _, err := cluster.Down(context.Background(), conf.Dir); err != nil {
			t.Error(err)
		}
	})
	err := cluster.Up(t.Context(), conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.Cluster, err = cluster.Open(conf.Dir); err != nil {
		t.Fatal(err)
	}
	rest, err := l.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	if l.client, err = kubernetes.NewForConfig(rest); err != nil {
		t.Fatal(err)
	}
	return l
}

func build(t *testing.T, out, module, pkg string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", out+"/", pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
}

// demo deploys varco kube-proxy and Services, checks every way to them, and sends requests while pods come and go.
func (l *lab) demo(t *testing.T) {
	_, err := demo.Show(t.Context(), l, demo.Config{
		Manifest: "../deploy/kube-proxy.yaml",
		Requests: 2000,
		Out:      t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ask sends requests from a place to the ClusterIP of a Service until stop is called, which returns the report.
func (l *lab) ask(t *testing.T, from, service string) (stop func() *load.Report) {
	t.Helper()
	ns, err := l.Namespace(from)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.client.CoreV1().Services(metav1.NamespaceDefault).Get(t.Context(), service, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hold, reports := make(chan struct{}), make(chan *load.Report, 1)
	go func() {
		r, err := load.Run(t.Context(), load.Config{
			URL: "http://" + s.Spec.ClusterIP + "/", Dial: ns.DialContext, Requests: 1, Hold: hold, Concurrency: 4, Rate: 200,
		})
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	return func() *load.Report {
		close(hold)
		defer ns.Close()
		return <-reports
	}
}

func noneFailed(t *testing.T, r *load.Report) {
	t.Helper()
	if r.Requests == 0 || r.Failed > 0 {
		t.Errorf("%d of %d requests failed: %s", r.Failed, r.Requests, strings.Join(r.Failures(), "; "))
	}
}

// killedProxy deletes elements behind the proxy's back on node-1 and kills it with SIGKILL, while node-2 goes on serving;
// its successor must repair node-1. Then it kills the other one under load: nothing may fail.
func (l *lab) killedProxy(t *testing.T) {
	ns, err := l.Namespace("node-1")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "varco-kube-proxy", Family: nftables.TableFamilyIPv4}
	conn.FlushSet(&nftables.Set{Table: table, Name: "services"})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	l.kill(t, "node-1")
	l.wait(t, "the elements to be back", func() (string, bool) {
		set, err := conn.GetSetByName(table, "services")
		if err != nil {
			return err.Error(), false
		}
		elements, err := conn.GetSetElements(set)
		return fmt.Sprintf("%d elements, %v", len(elements), err), len(elements) > 3
	})

	stop := l.ask(t, "node-2", "echo")
	l.kill(t, "node-2")
	l.scale(t, 4) // applied by the successor only
	l.awaitBackends(t, "node-2", 4)
	noneFailed(t, stop())
}

// kill ends the varco kube-proxy of a node by SIGKILL.
func (l *lab) kill(t *testing.T, node string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range procs {
		args, err := os.ReadFile(filepath.Dir(exe) + "/cmdline")
		path, err2 := os.Readlink(exe)
		if err := errors.Join(err, err2); err != nil || !strings.HasSuffix(path, l.varco) {
			continue // another program, or one that has just ended; in a container the path begins elsewhere
		}
		if !strings.Contains(string(args), "--hostname-override="+node+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no varco kube-proxy runs on %s", node)
}

// withoutAPIServer ends the API server under load: traffic goes on, and what changes later is applied.
func (l *lab) withoutAPIServer(t *testing.T) {
	stop := l.ask(t, "node-1", "echo")
	if err := l.Stop(t.Context(), "kube-apiserver", 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second) // the time without an API server is what is tested
	if err := l.Start(t.Context(), "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	l.wait(t, "the API server", func() (string, bool) {
		_, err := l.client.Discovery().ServerVersion()
		return fmt.Sprint(err), err == nil
	})
	l.scale(t, 2)
	l.awaitBackends(t, "node-1", 2)
	noneFailed(t, stop())
}

// badObjects writes what the API server takes and a proxy must not fall over: the rest is served.
func (l *lab) badObjects(t *testing.T) {
	services := l.client.CoreV1().Services(metav1.NamespaceDefault)
	external := "198.51.100.77"
	for _, name := range []string{"first", "second"} {
		_, err := services.Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "echo"}, ExternalIPs: []string{external},
				Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	// A slice of the other family, and one whose endpoints are of no node.
	port, name := int32(8080), ""
	_, err := l.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "first-six", Labels: map[string]string{discoveryv1.LabelServiceName: "first"}},
		AddressType: discoveryv1.AddressTypeIPv6,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"2001:db8::dead"}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.answers(t, "client", external)
	if err := services.Delete(t.Context(), "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	l.answers(t, "client", external) // the second one has it now
	if err := services.Delete(t.Context(), "second", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// answers waits until HTTP requests to port 80 of an address are answered.
func (l *lab) answers(t *testing.T, from, address string) {
	t.Helper()
	ns, err := l.Namespace(from)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	url := "http://" + netip.AddrPortFrom(netip.MustParseAddr(address), 80).String() + "/"
	l.wait(t, address+" to answer", func() (string, bool) {
		r, err := load.Run(t.Context(), load.Config{URL: url, Dial: ns.DialContext, Requests: 10, Timeout: time.Second})
		if err != nil {
			return err.Error(), false
		}
		return strings.Join(r.Failures(), "; "), r.Failed == 0
	})
}

func (l *lab) scale(t *testing.T, replicas int) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := l.client.AppsV1().Deployments(metav1.NamespaceDefault).
		Patch(t.Context(), "echo", types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitBackends waits until requests from a place are answered by exactly so many pods.
func (l *lab) awaitBackends(t *testing.T, from string, pods int) {
	t.Helper()
	l.wait(t, fmt.Sprintf("%d pods to answer", pods), func() (string, bool) {
		stop := l.ask(t, from, "echo")
		time.Sleep(300 * time.Millisecond) // so long are requests sent: enough to see all pods
		r := stop()
		return fmt.Sprintf("%d pods answer", len(r.ByPod)), len(r.ByPod) == pods
	})
}

// wait asks again and again until the state is as wanted.
func (l *lab) wait(t *testing.T, what string, ask func() (state string, ok bool)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		state, ok := ask()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %s", patience, what, state)
		}
		time.Sleep(50 * time.Millisecond) // between two questions
	}
}
