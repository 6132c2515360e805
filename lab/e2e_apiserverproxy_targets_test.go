package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"varco.dev/internal/nettest"
)

// conformance does what Kubernetes' own conformance tests of the proxy do (test/e2e/network/proxy.go).
func (p *apiProxies) conformance(t *testing.T) {
	for _, w := range append([]way{p.original}, p.ways...) {
		t.Run("Proxy version v1 "+w.name, func(t *testing.T) { p.serviceAndPod(t, w) })
		t.Run("ProxyWithPath "+w.name, func(t *testing.T) { p.withPath(t, w) })
		t.Run("Proxy "+w.name, func(t *testing.T) { p.withoutPath(t, w) })
	}
}

// serviceAndPod asks 16 URLs at a time, 20 times, and wants exact bodies.
func (p *apiProxies) serviceAndPod(t *testing.T, w way) {
	const rounds, longest = 20, 30 * time.Second
	c := p.httpClient(t)
	link := func(id, to string) string {
		return fmt.Sprintf(`<a href="%s/%s%s/proxy%s">test</a>`, w.base, pods, id, to)
	}
	expectations := map[string]string{
		services + "porter:portname1": "foo", services + "http:porter:portname1": "foo",
		services + "porter:portname2": "bar", services + "http:porter:portname2": "bar",
		services + "https:porter:tlsportname1": "tls baz", services + "https:porter:tlsportname2": "tls qux",
		pods + "porter": link("porter", "/rewriteme"), pods + "porter:1080": link("porter:1080", "/rewriteme"),
		pods + "http:porter:1080": link("http:porter:1080", "/rewriteme"),
		pods + "porter:160":       "foo", pods + "http:porter:160": "foo", pods + "porter:162": "bar", pods + "http:porter:162": "bar",
		pods + "https:porter:443": link("https:porter:443", "/tlsrewriteme"),
		pods + "https:porter:460": "tls baz", pods + "https:porter:462": "tls qux",
	}
	for range rounds {
		var asking sync.WaitGroup
		for path, want := range expectations {
			asking.Go(func() {
				begin := time.Now()
				a := send(c, request{path: path + "/proxy/"}.build(t, w))
				if a.err != nil || a.status != http.StatusOK || string(a.body) != want || time.Since(begin) > longest {
					t.Errorf("%s after %s: %s, want %q", path, time.Since(begin), a, want)
				}
			})
		}
		asking.Wait()
	}
}

func (p *apiProxies) withPath(t *testing.T, w way) {
	for _, method := range []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"} {
		for _, to := range []string{pods, services} {
			p.wantMethod(t, w, request{method: method, path: to + "agnhost/proxy/some/path/with/" + method})
		}
	}
}

func (p *apiProxies) withoutPath(t *testing.T, w way) {
	for _, to := range []string{pods, services} {
		for _, method := range []string{"DELETE", "OPTIONS", "PATCH", "POST", "PUT"} {
			p.wantMethod(t, w, request{method: method, path: to + "agnhost/proxy?method=" + method})
		}
		for _, method := range []string{"GET", "HEAD"} {
			a := p.ask(t, w, request{method: method, path: to + "agnhost/proxy?method=" + method})
			if a.status != http.StatusMovedPermanently {
				t.Errorf("%s %s: %s, want a redirect", method, to, a)
			}
		}
	}
}

func (p *apiProxies) wantMethod(t *testing.T, w way, r request) {
	t.Helper()
	a := p.ask(t, w, r)
	var got struct{ Method, Body string }
	if r.method != http.MethodHead && (json.Unmarshal(a.body, &got) != nil || got.Method != r.method || got.Body != "foo") || a.status != http.StatusOK {
		t.Errorf("%s %s: %s", r.method, r.path, a)
	}
}

// admission has a policy that gates paths. Whoever is in front of the API server cannot ask its policies.
func (p *apiProxies) admission(t *testing.T) {
	client := p.lab.client.AdmissionregistrationV1()
	const name = "no-admin-pages"
	meta, fail := metav1.ObjectMeta{Name: name}, admissionv1.Fail
	_, err := client.ValidatingAdmissionPolicies().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: meta,
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Connect},
					Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"},
						Resources: []string{"pods/proxy", "services/proxy", "nodes/proxy"}},
				},
			}}},
			Validations: []admissionv1.Validation{{
				Expression:        `!(has(object.path) && object.path.startsWith("/admin")) && !(request.name == "https:web:https")`,
				MessageExpression: `"may not see " + (has(object.path) ? object.path : "") + " of " + request.name + " " + object.kind`,
			}},
		},
	}, metav1.CreateOptions{})
	if err == nil {
		_, err = client.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: meta,
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name,
				ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = client.ValidatingAdmissionPolicyBindings().Delete(context.Background(), name, metav1.DeleteOptions{})
		_ = client.ValidatingAdmissionPolicies().Delete(context.Background(), name, metav1.DeleteOptions{})
		p.awaitPolicy(t, http.StatusOK)
	}()
	p.awaitPolicy(t, http.StatusUnprocessableEntity)
	for _, path := range []string{
		services + "plain/proxy/admin/x", services + "plain/proxy/adm", services + "plain/proxy", services + "https:web:https/proxy/x",
		services + "plain/proxy/%61dmin", services + "plain/proxy//admin", pods + "bare/proxy/admin", pods + "bare/proxy/x",
		"nodes/node-1/proxy/admin", "nodes/node-1/proxy/healthz", services + "none/proxy/admin", services + "a:b:c:d/proxy/admin",
	} {
		r := row{request: request{path: path}}
		r.compare(t, p.ways[0], p.ask(t, p.original, r.request), p.ask(t, p.ways[0], r.request))
	}
}

// awaitPolicy waits until both API servers know of the policy's begin or end.
func (p *apiProxies) awaitPolicy(t *testing.T, want int) {
	t.Helper()
	for _, w := range []way{p.original, p.ways[0]} {
		p.wait(t, "the policy, "+w.name, func() (string, bool) {
			a := p.ask(t, w, request{path: services + "plain/proxy/admin"})
			return a.String(), a.status == want
		})
	}
}

// slice makes an EndpointSlice of a Service. Endpoints name their pods, where they have one.
func (p *apiProxies) slice(t *testing.T, service, name string, port int, endpoints ...discoveryv1.Endpoint) {
	t.Helper()
	number, protocol, none := int32(port), corev1.ProtocolTCP, ""
	slices := p.lab.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	_, err := slices.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports:       []discoveryv1.EndpointPort{{Name: &none, Port: &number, Protocol: &protocol}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slices.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

// selectorless makes a Service whose slices somebody else makes.
func (p *apiProxies) selectorless(t *testing.T, name string) {
	t.Helper()
	services := p.lab.client.CoreV1().Services(metav1.NamespaceDefault)
	_, err := services.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

func endpoint(address string, pod string) discoveryv1.Endpoint {
	ready := true
	e := discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if pod != "" {
		e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: metav1.NamespaceDefault, Name: pod}
	}
	return e
}

// withoutSelector asks a server outside the cluster that a Service names, and others that may not be reached.
func (p *apiProxies) withoutSelector(t *testing.T) {
	l, err := p.client.Listen("tcp", nettest.ClientNet.Host(nettest.ClientHost).Addrs()[0].String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	outside := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "outside") }))
	outside.Listener = l
	outside.Start()
	defer outside.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	p.selectorless(t, "outside")
	p.slice(t, "outside", "outside-1", int(at.Port()), endpoint(at.Addr().String(), ""))
	p.selectorless(t, "forbidden")
	p.slice(t, "forbidden", "forbidden-1", 8080, endpoint(nettest.NodeNet.Host(11).Addrs()[0].String(), ""))
	p.selectorless(t, "own")
	p.slice(t, "own", "own-1", 6443, endpoint(p.controlPlane(0).Addrs[0].String(), ""))
	for _, w := range p.ways {
		p.wait(t, "a Service without selector, "+w.name, func() (string, bool) {
			a := p.ask(t, w, request{path: services + "outside/proxy/x"})
			return a.String(), a.status == http.StatusOK && string(a.body) == "outside"
		})
		for _, name := range []string{"forbidden", "own"} {
			if a := p.ask(t, w, request{path: services + name + "/proxy/healthz"}); a.status != http.StatusServiceUnavailable && a.status != http.StatusBadRequest {
				t.Errorf("%s, Service %s: %s, want a refusal", w.name, name, a)
			}
		}
	}
	if a := p.ask(t, p.original, request{path: services + "outside/proxy/x"}); a.status != http.StatusServiceUnavailable {
		t.Errorf("original: %s, want that there are no endpoints", a)
	}
}

// tally sends requests to a way, some at a time, and counts answers by pod; failed are those without.
func (p *apiProxies) tally(t *testing.T, w way, path string, requests int) (byPod map[string]int, failed []string) {
	t.Helper()
	const workers = 8
	c := p.httpClient(t)
	var mu sync.Mutex
	byPod = map[string]int{}
	next := make(chan struct{}, requests)
	for range requests {
		next <- struct{}{}
	}
	close(next)
	var asking sync.WaitGroup
	for range workers {
		asking.Go(func() {
			for range next {
				a := send(c, request{path: path}.build(t, w))
				mu.Lock()
				if a.err != nil || a.status != http.StatusOK {
					failed = append(failed, a.String())
				} else {
					byPod[a.header.Get("X-Pod")]++
				}
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	return byPod, failed
}

// spread counts how requests spread over pods in slices of unequal sizes: the original draws a slice first, so that a pod
// that is alone in its slice gets as much as all of another. How even it is where nothing disturbs it, the benchmark
// measures; here pods share a machine with all else, and those that answer late get less.
func (p *apiProxies) spread(t *testing.T) {
	const pods, requests = 6, 600
	p.scaleTo(t, pods)
	p.selectorless(t, "uneven")
	var endpoints []discoveryv1.Endpoint
	for _, pod := range p.echoPods(t) {
		endpoints = append(endpoints, endpoint(pod.Status.PodIP, pod.Name))
	}
	for i, part := range [][]discoveryv1.Endpoint{endpoints[:1], endpoints[1:3], endpoints[3:]} {
		p.slice(t, "uneven", fmt.Sprint("uneven-", i), 8080, part...)
	}
	for _, w := range append([]way{p.original}, p.ways...) {
		p.wait(t, "all pods to answer "+w.name, func() (string, bool) {
			byPod, failed := p.tally(t, w, services+"uneven/proxy/healthz", 100)
			return fmt.Sprint(byPod, failed), len(byPod) == pods && len(failed) == 0
		})
		byPod, failed := p.tally(t, w, services+"uneven/proxy/healthz", requests)
		least, most := requests, 0
		for _, n := range byPod {
			least, most = min(least, n), max(most, n)
		}
		alone := byPod[endpoints[0].TargetRef.Name]
		t.Logf("%s: most %d, least %d, alone in its slice %d", w.name, most, least, alone)
		if len(failed) > 0 || len(byPod) != pods || (alone > requests/4) != (w == p.original) {
			t.Errorf("%s: %v, %v", w.name, byPod, failed)
		}
	}
}

func (p *apiProxies) scaleTo(t *testing.T, n int) {
	t.Helper()
	p.scale(t, n)
	p.wait(t, fmt.Sprintf("%d pods", n), func() (string, bool) {
		d, err := p.lab.client.AppsV1().Deployments(metav1.NamespaceDefault).Get(t.Context(), "echo", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(d.Status.ReadyReplicas), int(d.Status.ReadyReplicas) == n && int(d.Status.Replicas) == n
	})
}

func (p *apiProxies) echoPods(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := p.lab.client.CoreV1().Pods(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{LabelSelector: "app=echo"})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// deadPods sends requests while an endpoint is dead, while pods go, and to a Service whose only pod is about to.
func (p *apiProxies) deadPods(t *testing.T) {
	t.Run("one of four", p.deadEndpoint)
	t.Run("scaled down", p.scaledDown)
	t.Run("the last one goes", p.lastPod)
}

// deadEndpoint has an endpoint that refuses connections.
func (p *apiProxies) deadEndpoint(t *testing.T) {
	p.selectorless(t, "limping")
	dead, err := p.lab.client.CoreV1().Pods(metav1.NamespaceDefault).Get(t.Context(), "agnhost", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	endpoints := []discoveryv1.Endpoint{endpoint(dead.Status.PodIP, dead.Name)} // nobody listens at its port 8080
	for _, pod := range p.echoPods(t)[:3] {
		endpoints = append(endpoints, endpoint(pod.Status.PodIP, pod.Name))
	}
	p.slice(t, "limping", "limping-1", 8080, endpoints...)
	for _, w := range append([]way{p.original}, p.ways...) {
		p.wait(t, "endpoints, "+w.name, func() (string, bool) {
			byPod, failed := p.tally(t, w, services+"limping/proxy/healthz", 20)
			return fmt.Sprint(failed), len(byPod) == 3
		})
		byPod, failed := p.tally(t, w, services+"limping/proxy/healthz", 200)
		t.Logf("%s: %d of 200 failed", w.name, len(failed))
		if (len(failed) > 0) != (w == p.original) {
			t.Errorf("%s: %v, %d failed: %v", w.name, byPod, len(failed), failed[:min(len(failed), 3)])
		}
	}
}

// scaledDown removes pods while requests go on.
func (p *apiProxies) scaledDown(t *testing.T) {
	var asking sync.WaitGroup
	gone := make(chan struct{})
	for _, w := range p.ways {
		asking.Go(func() {
			for n := 0; ; {
				byPod, failed := p.tally(t, w, services+"plain/proxy/healthz", 40)
				n += 40
				if len(failed) > 0 {
					t.Errorf("%s: %d of %d failed: %v; %v", w.name, len(failed), n, byPod, failed[:1])
					return
				}
				select {
				case <-gone:
					return
				case <-time.After(20 * time.Millisecond): // leaves room for what else runs on the machine
				}
			}
		})
	}
	p.scaleTo(t, echoPods)
	p.wait(t, "the pods to go", func() (string, bool) {
		n := len(p.echoPods(t))
		return fmt.Sprint(n), n == echoPods
	})
	close(gone)
	asking.Wait()
}

// lastPod deletes the only pod of a Service, which serves on for a while.
func (p *apiProxies) lastPod(t *testing.T) {
	grace, pods := int64(10), p.lab.client.CoreV1().Pods(metav1.NamespaceDefault)
	labels := map[string]string{"app": "last"}
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "last", Labels: labels},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{
			Name: "echo", Image: "lab/echo", Args: []string{"--shutdown-delay=6s"}, Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
				HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(8080)}}},
		}}},
	}, metav1.CreateOptions{})
	if err == nil {
		_, err = p.lab.client.CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "last"},
			Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	ask := request{path: services + "last/proxy/healthz"}
	for _, w := range append([]way{p.original}, p.ways...) {
		p.wait(t, "the pod to serve "+w.name, func() (string, bool) {
			a := p.ask(t, w, ask)
			return a.String(), a.status == http.StatusOK
		})
	}
	if err := pods.Delete(t.Context(), "last", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.wait(t, "the original to see the pod go", func() (string, bool) {
		a := p.ask(t, p.original, ask)
		return a.String(), a.status == http.StatusServiceUnavailable
	})
	for _, w := range p.ways {
		if a := p.ask(t, w, ask); a.status != http.StatusOK {
			t.Errorf("%s: %s, want the pod that still serves", w.name, a)
		}
	}
}
