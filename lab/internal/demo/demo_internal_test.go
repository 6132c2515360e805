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
	"varco.dev/lab/internal/load"
)

func testServices() services {
	svc := func(v4, v6 string) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{v4, v6}}}
	}
	s := services{
		echo: svc("10.96.0.1", "fd00:96::1"), nodePort: svc("10.96.0.2", "fd00:96::2"), lb: svc("10.96.0.3", "fd00:96::3"),
		external: svc("10.96.0.4", "fd00:96::4"), empty: svc("10.96.0.5", "fd00:96::5"),
		node: []netip.Addr{netip.MustParseAddr("10.240.0.11"), netip.MustParseAddr("fd00:240::b")},
	}
	s.nodePort.Spec.Ports = []corev1.ServicePort{{Name: "http", NodePort: 30080}, {Name: "udp", NodePort: 30700}}
	s.lb.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.10"}, {IP: "2001:db8:51::10"}}
	s.external.Spec.ExternalIPs = []string{"198.51.100.20", "2001:db8:51::20"}
	return s
}

func TestPlan(t *testing.T) {
	var got []string
	for _, c := range testServices().plan() {
		if c.to.Addr().Is4() {
			got = append(got, fmt.Sprintf("%s %s %s refused=%t", c.from, c.kind, c.url(), c.refused))
		}
	}
	want := []string{
		"pod ClusterIP http://10.96.0.1:80 refused=false",
		"node ClusterIP http://10.96.0.1:80 refused=false",
		"own pod ClusterIP http://10.96.0.1:80 refused=false",
		"pod ClusterIP tcp://10.96.0.1:7000 refused=false",
		"node ClusterIP tcp://10.96.0.1:7000 refused=false",
		"pod ClusterIP udp://10.96.0.1:7000 refused=false",
		"node ClusterIP udp://10.96.0.1:7000 refused=false",
		"pod ClusterIP sctp://10.96.0.1:7001 refused=false",
		"node ClusterIP sctp://10.96.0.1:7001 refused=false",
		"pod NodePort http://10.240.0.11:30080 refused=false",
		"node NodePort http://10.240.0.11:30080 refused=false",
		"client NodePort http://10.240.0.11:30080 refused=false",
		"client NodePort udp://10.240.0.11:30700 refused=false",
		"pod load balancer http://198.51.100.10:80 refused=false",
		"node load balancer http://198.51.100.10:80 refused=false",
		"client load balancer http://198.51.100.10:80 refused=false",
		"pod external IP http://198.51.100.20:80 refused=false",
		"client external IP http://198.51.100.20:80 refused=false",
		"pod no endpoints http://10.96.0.5:80 refused=true",
		"node no endpoints http://10.96.0.5:80 refused=true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("IPv4 plan (-want +got):\n%s", diff)
	}
	if all := len(testServices().plan()); all != 2*len(want) {
		t.Errorf("%d rows in all, want as many for IPv6", all)
	}
}

func TestFlowsHaveEachSourceAndFamily(t *testing.T) {
	var got []string
	for _, c := range testServices().flows() {
		got = append(got, c.from+" "+c.url())
	}
	want := []string{
		"pod http://10.96.0.1:80", "pod http://[fd00:96::1]:80", "node http://10.96.0.1:80", "node http://[fd00:96::1]:80",
		"client http://198.51.100.10:80", "client http://[2001:db8:51::10]:80",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
}

func TestTable(t *testing.T) {
	to := netip.MustParseAddrPort("10.96.0.1:80")
	refused := "dial tcp: connect: connection refused"
	outcomes := []outcome{
		{check{from: "pod", kind: "ClusterIP", to: to, protocol: "http"},
			&load.Report{Requests: 10, ByPod: map[string]int{"a": 4, "b": 6}}},
		{check{from: "client", kind: "NodePort", to: to, protocol: "udp"},
			&load.Report{Requests: 10, Failed: 3, ByPod: map[string]int{"a": 3, "b": 4}, Errors: map[string]int{"lost": 3}}},
		{check{from: "node", kind: "NodePort", to: to, protocol: "tcp"},
			&load.Report{Requests: 10, ByPod: map[string]int{"a": 10}}},
		{check{from: "pod", kind: "no endpoints", to: to, protocol: "http", refused: true},
			&load.Report{Requests: 10, Failed: 10, Errors: map[string]int{refused: 10}}},
		{check{from: "node", kind: "no endpoints", to: to, protocol: "http", refused: true},
			&load.Report{Requests: 10, Failed: 9, ByPod: map[string]int{"c": 1}, Errors: map[string]int{refused: 9}}},
		{check{from: "own pod", kind: "no endpoints", to: to, protocol: "http", refused: true},
			&load.Report{Requests: 10, Failed: 10, Errors: map[string]int{"no answer within 5s": 10}}},
	}
	var b strings.Builder
	wrong, err := printTable(&b, outcomes, 2)
	if err != nil || wrong != 4 {
		t.Errorf("%d wrong, %v", wrong, err)
	}
	want := `FROM     TO            ADDRESS       PROTOCOL  REQUESTS  FAILED  SPREAD
pod      ClusterIP     10.96.0.1:80  http      10        0       2 pods: 4 6
client   NodePort      10.96.0.1:80  udp       10        3       2 pods: 3 4
node     NodePort      10.96.0.1:80  tcp       10        0       1 pod: 10
pod      no endpoints  10.96.0.1:80  http      10        0       refused, as it must be
node     no endpoints  10.96.0.1:80  http      10        1       1 pod: 1
own pod  no endpoints  10.96.0.1:80  http      10        10      -
✗ client to NodePort 10.96.0.1:80 (udp): 3 × lost
✗ node to NodePort 10.96.0.1:80 (tcp): only 1 of 2 pods answered
✗ node to no endpoints 10.96.0.1:80 (http): 1 were answered, by pods [c]
✗ own pod to no endpoints 10.96.0.1:80 (http): 10 × no answer within 5s
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
	src := sources{fromPod: func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials.Add(1) < 4 {
			return nil, errors.New("not yet")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	to := netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	if ok, err := src.await(t.Context(), check{from: fromPod, to: to, protocol: "http"}, 2); !ok || err != nil {
		t.Error(ok, err)
	}
	if n := answers.Load(); n != 5 {
		t.Errorf("done after %d answers, want 5", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := src.await(ctx, check{from: fromPod, to: to, protocol: "http", refused: true}, 2); ok || err == nil {
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
	want := []string{"Deployment echo", "Pod visitor", "Service echo", "Service echo-nodeport", "Service echo-lb",
		"Service echo-external", "Service empty"}
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
