package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"varco.dev/lab/internal/load"
)

func testScene() *scene {
	s := &scene{services: map[string]*corev1.Service{}}
	names := []string{"echo", "echo-nodeport", "echo-lb", "echo-external", "empty", "local", "internal-local", "sticky", "zonal",
		"guarded", "maglev", "hashed"}
	for i, name := range names {
		svc := &corev1.Service{Spec: corev1.ServiceSpec{
			ClusterIPs:  []string{fmt.Sprintf("10.96.0.%d", i+1), fmt.Sprintf("fd00:96::%d", i+1)},
			ExternalIPs: []string{fmt.Sprintf("198.51.100.%d", i+1), fmt.Sprintf("2001:db8:51::%d", i+1)},
			Ports:       []corev1.ServicePort{{Name: "http", NodePort: int32(30001 + i)}, {Name: "udp", NodePort: 30700}},
		}}
		for _, ip := range svc.Spec.ExternalIPs {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
		}
		s.services[name] = svc
	}
	for i, zone := range []string{"a", "b", "a"} {
		n := corev1.Node{}
		n.Name, n.Labels = fmt.Sprintf("node-%d", i+1), map[string]string{corev1.LabelTopologyZone: zone}
		n.Status.Addresses = []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.240.0.%d", i+11)},
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("fd00:240::%d", i+11)},
			{Type: corev1.NodeHostName, Address: n.Name},
		}
		s.nodes = append(s.nodes, n)
		s.echo = append(s.echo, corev1.Pod{})
		s.echo[i].Name, s.echo[i].Spec.NodeName = "e"+n.Name[5:], n.Name
	}
	s.pinned = make([]corev1.Pod, 2)
	s.pinned[0].Name, s.pinned[1].Name = "p1", "p2"
	return s
}

func TestPlan(t *testing.T) {
	var got []string
	for _, w := range testScene().plan() {
		var to []string
		for _, a := range w.to {
			if a.Addr().Is4() {
				to = append(to, a.String())
			}
		}
		got = append(got, fmt.Sprintf("%s: %s %s %s: %s %s", w.from, w.kind, w.protocol, strings.Join(to, " "), w.want, w.want.pods))
	}
	want := []string{
		"pod: ClusterIP http 10.96.0.1:80: 3 pods [e1 e2 e3]",
		"last node: ClusterIP http 10.96.0.1:80: 3 pods [e1 e2 e3]",
		"own pod: ClusterIP http 10.96.0.1:80: 3 pods [e1 e2 e3]",
		"pod: ClusterIP tcp 10.96.0.1:7000: 3 pods [e1 e2 e3]",
		"last node: ClusterIP tcp 10.96.0.1:7000: 3 pods [e1 e2 e3]",
		"pod: ClusterIP udp 10.96.0.1:7000: 3 pods [e1 e2 e3]",
		"last node: ClusterIP udp 10.96.0.1:7000: 3 pods [e1 e2 e3]",
		"pod: ClusterIP sctp 10.96.0.1:7001: 3 pods [e1 e2 e3]",
		"last node: ClusterIP sctp 10.96.0.1:7001: 3 pods [e1 e2 e3]",
		"pod: NodePort http 10.240.0.11:30002: 3 pods [e1 e2 e3]",
		"last node: NodePort http 10.240.0.11:30002: 3 pods [e1 e2 e3]",
		"client: NodePort http 10.240.0.11:30002: 3 pods, source hidden [e1 e2 e3]",
		"client: NodePort udp 10.240.0.11:30700: 3 pods, source hidden [e1 e2 e3]",
		"last node: NodePort at localhost http 127.0.0.1:30002: 3 pods [e1 e2 e3]",
		"pod: load balancer http 198.51.100.3:80: 3 pods [e1 e2 e3]",
		"last node: load balancer http 198.51.100.3:80: 3 pods [e1 e2 e3]",
		"client: load balancer http 198.51.100.3:80: 3 pods, source hidden [e1 e2 e3]",
		"pod: external IP http 198.51.100.4:80: 3 pods [e1 e2 e3]",
		"client: external IP http 198.51.100.4:80: 3 pods [e1 e2 e3]",
		"client: load balancer, external Local http 198.51.100.6:80: 2 pods, source kept [p1 p2]",
		"pod: load balancer, external Local http 198.51.100.6:80: 2 pods, source kept [p1 p2]",
		"last node: load balancer, external Local http 198.51.100.6:80: 2 pods [p1 p2]",
		"client: NodePort, external Local http 10.240.0.11:30006: 2 pods, source kept [p1 p2]",
		"first node: ClusterIP, internal Local http 10.96.0.7:80: 2 pods [p1 p2]",
		"client: NodePort, external Local http 10.240.0.13:30006: no answer []",
		"last node: ClusterIP, internal Local http 10.96.0.7:80: no answer []",
		"pod: session affinity http 10.96.0.8:80 198.51.100.8:80: always the same pod [e1 e2 e3]",
		"client: session affinity http 198.51.100.8:80: always the same pod [e1 e2 e3]",
		"client: hash of the source, all nodes http 10.240.0.11:30012 10.240.0.12:30012 10.240.0.13:30012: always the same pod [e1 e2 e3]",
		"pod: Maglev http 10.96.0.11:80: 3 pods [e1 e2 e3]",
		"first node: same zone preferred http 10.96.0.9:80: 2 pods [e1 e3]",
		"last node: same zone preferred http 10.96.0.9:80: 2 pods [e1 e3]",
		"last node: source in ranges http 198.51.100.10:80: 3 pods [e1 e2 e3]",
		"client: source not in ranges http 198.51.100.10:80: no answer []",
		"pod: source not in ranges http 198.51.100.10:80: no answer []",
		"pod: no endpoints http 10.96.0.5:80: refused at once []",
		"last node: no endpoints http 10.96.0.5:80: refused at once []",
		"pod: undefined port http 10.96.0.1:81: refused at once []",
		"last node: undefined port http 10.96.0.1:81: refused at once []",
		"pod: unallocated ClusterIP http 10.96.0.0:80: no answer []",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestPlanOfOneNode(t *testing.T) {
	s := testScene()
	s.nodes = s.nodes[1:2] // of a zone with one pod
	for _, w := range s.plan() {
		if w.want.ending == dropped && strings.Contains(w.kind, "Local") {
			t.Errorf("%s from %s is asked where all pods are local", w.kind, w.from)
		}
	}
	s.echo[1].Spec.NodeName = "node-1"
	if got := s.inZone(s.first()); len(got) != 3 {
		t.Errorf("a zone without pods leads to %v, want all", got)
	}
}

func TestFlowsHaveEachSourceAndFamily(t *testing.T) {
	var got []string
	for _, c := range testScene().flows() {
		got = append(got, c.from+" "+c.url())
	}
	want := []string{
		"pod http://10.96.0.1:80", "pod http://[fd00:96::1]:80", "last node http://10.96.0.1:80",
		"last node http://[fd00:96::1]:80", "client http://198.51.100.3:80", "client http://[2001:db8:51::3]:80",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
}

// report makes a Report of answers by pod and failures by reason.
func report(client string, pods, errs map[string]int) *load.Report {
	r := load.NewReport()
	for pod, n := range pods {
		r.ByPod[pod] = n
		r.Requests += n
		if client != "" {
			r.ByClient[client] += n
		}
	}
	for text, n := range errs {
		r.Errors[text] = n
		r.Requests += n
		r.Failed += n
	}
	return r
}

func TestTable(t *testing.T) {
	four, six := netip.MustParseAddrPort("10.96.0.1:80"), netip.MustParseAddrPort("[fd00::1]:80")
	self := []netip.Addr{netip.MustParseAddr("203.0.113.10")}
	all := want{pods: []string{"a", "b"}}
	no := map[string]int{"dial tcp: connect: connection refused": 4}
	silent := map[string]int{"dial tcp: no answer within 1s": 4}
	type m = map[string]int
	row := func(w want, reports ...*load.Report) outcome {
		return outcome{way{"pod", "ClusterIP", "http", []netip.AddrPort{four, six}[:len(reports)], w}, reports, self}
	}
	outcomes := []outcome{
		row(all, report("", m{"a": 4, "b": 6}, nil), report("", m{"a": 5, "b": 5}, nil)),
		row(all, report("", m{"a": 3, "b": 4}, m{"lost": 3})),
		row(all, report("", m{"a": 10}, nil)),
		row(all, report("", m{"a": 5, "b": 4, "c": 1}, nil)),
		row(want{pods: all.pods, source: kept}, report("203.0.113.10", m{"a": 5, "b": 5}, nil)),
		row(want{pods: all.pods, source: kept}, report("10.240.0.11", m{"a": 5, "b": 5}, nil)),
		row(want{pods: all.pods, source: hidden}, report("203.0.113.10", m{"a": 5, "b": 5}, nil)),
		row(want{pods: all.pods, one: true}, report("", m{"a": 10}, nil), report("", m{"b": 10}, nil)),
		row(want{pods: all.pods, one: true}, report("", m{"a": 9, "b": 1}, nil)),
		row(want{ending: refused}, report("", nil, no)),
		row(want{ending: refused}, report("", nil, silent)),
		row(want{ending: dropped}, report("", nil, silent)),
		row(want{ending: dropped}, report("", m{"c": 1}, silent)),
	}
	outcomes[0].to = append(outcomes[0].to, netip.MustParseAddrPort("10.96.0.2:80"))
	outcomes[0].reports = append(outcomes[0].reports, report("", m{"a": 1, "b": 1}, nil))
	var b strings.Builder
	wrong, err := printTable(&b, outcomes, places{"pod": {name: "pod"}})
	if err != nil || wrong != 8 {
		t.Errorf("%d wrong, %v", wrong, err)
	}
	want := `FROM  TO         ADDRESS                PROTOCOL  EXPECTED               SEEN
pod   ClusterIP  10.96.0.1:80 +1 +IPv6  http      2 pods                 2 pods: 10 12
pod   ClusterIP  10.96.0.1:80           http      2 pods                 ✗ 3 of 10 failed, 2 pods: 3 4
pod   ClusterIP  10.96.0.1:80           http      2 pods                 ✗ 0 of 10 failed, 1 pod: 10
pod   ClusterIP  10.96.0.1:80           http      2 pods                 ✗ 0 of 10 failed, 3 pods: 5 4 1
pod   ClusterIP  10.96.0.1:80           http      2 pods, source kept    2 pods: 5 5, source kept
pod   ClusterIP  10.96.0.1:80           http      2 pods, source kept    ✗ 0 of 10 failed, 2 pods: 5 5
pod   ClusterIP  10.96.0.1:80           http      2 pods, source hidden  ✗ 0 of 10 failed, 2 pods: 5 5
pod   ClusterIP  10.96.0.1:80 +IPv6     http      always the same pod    20 answers, 1 pod
pod   ClusterIP  10.96.0.1:80           http      always the same pod    ✗ 0 of 10 failed, 2 pods: 9 1
pod   ClusterIP  10.96.0.1:80           http      refused at once        4 × refused at once
pod   ClusterIP  10.96.0.1:80           http      refused at once        ✗ 4 of 4 failed, -
pod   ClusterIP  10.96.0.1:80           http      no answer              4 × no answer
pod   ClusterIP  10.96.0.1:80           http      no answer              ✗ 4 of 5 failed, 1 pod: 1
✗ pod to ClusterIP (http) 10.96.0.1:80: 3 × lost
✗ pod to ClusterIP (http) 10.96.0.1:80: only 1 of 2 pods answered
✗ pod to ClusterIP (http) 10.96.0.1:80: 5 from a; 4 from b; 1 from c
✗ pod to ClusterIP (http) 10.96.0.1:80: pods saw requests come from 10.240.0.11
✗ pod to ClusterIP (http) 10.96.0.1:80: pods saw requests come from 203.0.113.10
✗ pod to ClusterIP (http) answers came from several pods: a b
✗ pod to ClusterIP (http) 10.96.0.1:80: 4 × dial tcp: no answer within 1s
✗ pod to ClusterIP (http) 10.96.0.1:80: 4 × dial tcp: no answer within 1s; 1 from c
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestAwaitAsksUntilAllPodsAnswered(t *testing.T) {
	var answers atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		// Pod b joins after four answers.
		pod := "a"
		if answers.Add(1) > 4 {
			pod = "b"
		}
		w.Header().Set("X-Pod", pod)
	}))
	defer s.Close()
	var dials atomic.Int64
	src := places{fromPod: {dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials.Add(1) < 4 {
			return nil, errors.New("not yet")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}}
	to := netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	both := want{pods: []string{"a", "b"}}
	if ok, err := src.await(t.Context(), check{from: fromPod, to: to, protocol: "http", want: both}); !ok || err != nil {
		t.Error(ok, err)
	}
	if n := answers.Load(); n != 5 {
		t.Errorf("done after %d answers, want 5", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := src.await(ctx, check{from: fromPod, to: to, protocol: "http", want: want{ending: refused}}); ok || err == nil {
		t.Error("an answer was taken for a refusal")
	}
}

func TestSharesAddUp(t *testing.T) {
	sum := 0
	for i := range 6 {
		n := share(10000, 6, i)
		if n != 1666 && n != 1667 {
			t.Errorf("share %d is %d", i, n)
		}
		sum += n
	}
	if sum != 10000 {
		t.Errorf("the shares are %d in all", sum)
	}
}

func TestManifestDecodes(t *testing.T) {
	objects, err := decode(servicesManifest)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.GetKind()+" "+o.GetName())
	}
	want := []string{"Deployment echo", "Deployment pinned", "Pod visitor", "Service echo", "Service echo-nodeport",
		"Service echo-lb", "Service echo-external", "Service empty", "Service local", "Service internal-local",
		"Service sticky", "Service zonal", "Service guarded", "Service maglev", "Service hashed"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	if _, err := decode([]byte("a: b\n---\n{")); err == nil {
		t.Error("a broken manifest was taken")
	}
}

func TestConsoleWritesPlainLinesToFiles(t *testing.T) {
	var b bytes.Buffer
	c := newConsole(&b)
	c.status("never seen")
	if err := c.step("this", func() (string, error) { return "done so", nil }); err != nil {
		t.Error(err)
	}
	err := c.step("that", func() (string, error) { return "", errors.New("no") })
	if err == nil || err.Error() != "that: no" {
		t.Errorf("error %v", err)
	}
	want := "✓ this                       0.0s  done so\n✗ that                       0.0s  failed\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// The manifest that the demo applies has no variable that it does not know.
func TestVariablesOfManifest(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/kube-proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := variables().Replace(string(text))
	for _, want := range []string{"https://10.240.0.2:6443", "10.244.0.0/16,fd00:244::/48"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in the manifest", want)
		}
	}
	if _, unknown, found := strings.Cut(got, "${"); found {
		t.Errorf("left in the manifest: ${%.20s", unknown)
	}
}

func TestLocalhostIsAddedToTheConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/kube-proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := serveLocalhost(objects); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		if text, found, _ := unstructured.NestedString(o.Object, "data", "config.conf"); found {
			got = append(got, text)
		}
	}
	if len(got) != 1 || !strings.HasSuffix(got[0], "\nnodePortAddresses: [primary, localhost]\n") {
		t.Errorf("configurations %q", got)
	}
	if err := serveLocalhost(nil); err == nil {
		t.Error("a manifest without a configuration was taken")
	}
}
