package main_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	conf   cluster.Config
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
		{"varco kubectl-proxy", l.kubectlProxy},
		{"varco apiserver-proxy", l.apiServerProxy},
		{"varco apiserver-proxy deployed", l.deployedAPIServerProxy},
		{"status and explain", l.inspect},
		{"health check of a Service", l.healthCheck},
		{"rules deleted", l.deletedRules},
		{"varco kube-proxy killed", l.killedProxy},
		{"leftovers of kube-proxy", l.leftovers},
		{"configuration changed", l.changedConfig},
		{"two copies", l.twoCopies},
		{"node address changed", l.nodeAddress},
		{"ServiceCIDR added", l.serviceCIDR},
		{"pods ended by force", l.forcedPods},
		{"bad objects", l.badObjects},
		{"API server away", l.withoutAPIServer}, // the last: the controllers take half a minute to find it again
	}
	for _, s := range steps {
		if !t.Run(s.name, s.test) {
			return // the next would only repeat what is wrong
		}
	}
}

// up builds both binaries and starts the lab, for the time of the test.
func up(t *testing.T) *lab {
	conf, varco := binaries(t)
	return bringUp(t, conf, varco)
}

// binaries builds both, and returns the configuration of a lab of two nodes.
func binaries(t *testing.T) (conf cluster.Config, varco string) {
	dir := t.TempDir()
	build(t, dir, "..", "./cmd/varco")
	build(t, dir, ".", ".")
	varco = filepath.Join(dir, "varco")
	conf = cluster.Config{
		Dir: filepath.Join(dir, "lab"), Nodes: 2, Binary: filepath.Join(dir, "lab.bin"), Images: []string{"varco=" + varco},
	}
	if err := os.Rename(filepath.Join(dir, "lab"), conf.Binary); err != nil {
		t.Fatal(err)
	}
	return conf, varco
}

// bringUp starts a lab for the time of the test.
func bringUp(t *testing.T, conf cluster.Config, varco string) *lab {
	l := &lab{varco: varco, conf: conf}
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

// demo deploys varco kube-proxy and Services, checks every way to them, sends requests while pods come and go, and shows
// varco apiserver-proxy and varco kubectl-proxy.
func (l *lab) demo(t *testing.T) {
	_, err := demo.Show(t.Context(), l, demo.Config{
		Manifest: "../deploy/kube-proxy.yaml",
		Requests: 2000,
		Pause:    500 * time.Millisecond,
		Out:      t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = demo.ShowFront(t.Context(), l, demo.FrontConfig{
		Varco: l.varco, Manifest: "../deploy/apiserver-proxy-rbac.yaml", PKI: filepath.Join(l.conf.Dir, "pki"), Out: t.Output(),
	})
	if err != nil {
		t.Error(err)
	}
	g, err := demo.ShowGateway(t.Context(), demo.GatewayConfig{Varco: l.varco, Kubeconfig: l.writeKubeconfig(t, ""), Out: t.Output()})
	if err != nil {
		t.Error(err)
	}
	if g != nil {
		g.Stop()
	}
}

// ask sends requests from a place to the ClusterIP of a Service until stop is called, which returns the report.
func (l *lab) ask(t *testing.T, from, service string) (stop func() *load.Report) {
	t.Helper()
	return l.askAt(t, from, "http://"+l.service(t, service).Spec.ClusterIP+"/")
}

func (l *lab) service(t *testing.T, name string) *corev1.Service {
	t.Helper()
	s, err := l.client.CoreV1().Services(metav1.NamespaceDefault).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// askAt is ask for a URL.
func (l *lab) askAt(t *testing.T, from, url string) (stop func() *load.Report) {
	t.Helper()
	ns := l.open(t, from)
	hold, reports := make(chan struct{}), make(chan *load.Report, 1)
	go func() {
		r, err := load.Run(t.Context(), load.Config{
			URL: url, Dial: ns.DialContext, Requests: 1, Hold: hold, Concurrency: 4, Rate: 200,
		})
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	return func() *load.Report {
		close(hold)
		return <-reports
	}
}

// open opens a namespace of the lab for the time of the test.
func (l *lab) open(t *testing.T, name string) *nettest.Namespace {
	t.Helper()
	ns, err := l.Namespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func noneFailed(t *testing.T, r *load.Report) {
	t.Helper()
	if r.Requests == 0 || r.Failed > 0 {
		t.Errorf("%d of %d requests failed: %s", r.Failed, r.Requests, strings.Join(r.Failures(), "; "))
	}
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
	ns := l.open(t, from)
	url := "http://" + netip.AddrPortFrom(netip.MustParseAddr(address), 80).String() + "/"
	l.wait(t, address+" to answer", func() (string, bool) {
		return l.tryFor(t, ns, load.Config{URL: url, Requests: 10, Concurrency: 10, Timeout: 300 * time.Millisecond})
	})
}

// try sends some requests, and tells whether all are answered.
func (l *lab) try(t *testing.T, ns *nettest.Namespace, url string, requests int) (failures string, ok bool) {
	return l.tryFor(t, ns, load.Config{URL: url, Requests: requests, Timeout: time.Second})
}

func (l *lab) tryFor(t *testing.T, ns *nettest.Namespace, cfg load.Config) (failures string, ok bool) {
	cfg.Dial = ns.DialContext
	r, err := load.Run(t.Context(), cfg)
	if err != nil {
		return err.Error(), false
	}
	return strings.Join(r.Failures(), "; "), r.Failed == 0 && r.Requests == cfg.Requests
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
	l.waitFor(t, patience, what, ask)
}

// waitFor is wait with a limit of its own.
func (l *lab) waitFor(t *testing.T, limit time.Duration, what string, ask func() (state string, ok bool)) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		state, ok := ask()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %s", limit, what, state)
		}
		time.Sleep(50 * time.Millisecond) // between two questions
	}
}
