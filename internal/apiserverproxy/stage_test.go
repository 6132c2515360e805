package apiserverproxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/fake"

	"varco.dev/internal/apiserverproxy"
	"varco.dev/internal/nettest"
)

// stage is a cluster of objects, targets at its addresses, and the proxy.
type stage struct {
	t       *testing.T
	handler *apiserverproxy.Handler
	ours    *httptest.Server
	log     nettest.Journal
	passed  chan *http.Request // what was handed on

	mu      sync.Mutex
	targets map[string]string // address in the cluster -> where it is really served
}

// alice is who asks unless a test says otherwise.
const alice = "alice"

// newStage starts the proxy with some objects. Addresses of the cluster are not this machine's: the egress of the proxy
// knows where they are served.
func newStage(t *testing.T, objects []runtime.Object, options ...func(*apiserverproxy.Config)) *stage {
	t.Helper()
	s := &stage{t: t, targets: map[string]string{}, passed: make(chan *http.Request, 100)}
	c := apiserverproxy.Config{
		Log:    slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Client: fake.NewClientset(objects...),
		Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.passed <- r
			w.WriteHeader(http.StatusTeapot)
		}),
	}
	c.Outbound.Egress = s.dial
	for _, option := range options {
		option(&c)
	}
	var err error
	if s.handler, err = apiserverproxy.New(c); err != nil {
		t.Fatal(err)
	}
	s.run(s.handler.Run)
	select {
	case <-s.handler.Synced():
	case <-time.After(10 * time.Second):
		t.Fatalf("the objects are not there:\n%s", s.log.String())
	}
	s.ours = s.serve(s.handler)
	return s
}

// infos are kube-apiserver's.
func infos() *request.RequestInfoFactory {
	return &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
}

// run runs a part until the test ends.
func (s *stage) run(part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("run: %v", err)
		}
	})
}

// serve starts a server with what a chain of handlers puts into the context: the user and the RequestInfo. As upstream it
// takes the Authorization away.
func (s *stage) serve(h http.Handler) *httptest.Server {
	infos := infos()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, err := infos.NewRequestInfo(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		name := alice
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			name = token
		}
		r.Header.Del("Authorization")
		ctx := request.WithRequestInfo(r.Context(), info)
		ctx = request.WithUser(ctx, &user.DefaultInfo{Name: name})
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	s.t.Cleanup(server.Close)
	return server
}

// dial connects to where an address of the cluster is served. What nobody serves refuses.
func (s *stage) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	real, ok := s.targets[address]
	s.mu.Unlock()
	if !ok {
		real = "127.0.0.1:1" // a port that nobody has
	}
	var d net.Dialer
	return d.DialContext(ctx, network, real)
}

// target serves an address of the cluster.
func (s *stage) target(address string, h http.HandlerFunc, options ...func(*httptest.Server)) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	start := server.Start
	for _, option := range options {
		option(server)
	}
	if server.TLS != nil {
		start = server.StartTLS
	}
	start()
	s.t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	s.at(address, server.Listener.Addr().String())
	return server
}

// at has an address of the cluster served at a real one.
func (s *stage) at(address, real string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.targets[address] = real
}

// overTLS has a target speak TLS.
func overTLS(server *httptest.Server) { server.TLS = &tls.Config{} }

// clusterTransport is an http.Transport that finds addresses of the cluster. It does not ask for gzip where clients do not:
// what the original's does there is a row of its own.
func (s *stage) clusterTransport() *http.Transport {
	t := &http.Transport{DialContext: s.dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}
	s.t.Cleanup(t.CloseIdleConnections)
	return t
}

// answer is what a client gets.
type answer struct {
	code   int
	header http.Header
	body   string
}

// ask sends a request as it stands, and returns the answer. Lines end with \n alone.
func (s *stage) ask(server *httptest.Server, raw string) answer {
	s.t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, strings.ReplaceAll(raw, "\n", "\r\n")); err != nil {
		s.t.Fatal(err)
	}
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("no answer to %q: %v\n%s", raw, err, s.log.String())
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return answer{code: resp.StatusCode, header: resp.Header}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("the answer to %q ends early: %v", raw, err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// get asks ours for a path, with further header lines.
func (s *stage) get(path string, lines ...string) answer {
	s.t.Helper()
	return s.ask(s.ours, simple("GET", path, lines...))
}

func simple(method, path string, lines ...string) string {
	head := fmt.Sprintf("%s %s HTTP/1.1\nHost: api.example\n", method, path)
	for _, line := range lines {
		head += line + "\n"
	}
	return head + "\n"
}

// pod is a running pod with an address and ports "name=number".
func pod(name, ip string, ports ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-pod-" + typesUID(name)},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
	c := corev1.Container{Name: "main"}
	for _, text := range ports {
		name, number, _ := strings.Cut(text, "=")
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: name, ContainerPort: int32(atoi(number)), Protocol: corev1.ProtocolTCP})
	}
	p.Spec.Containers = []corev1.Container{c}
	return p
}

// web is a Service "web" with ports "name=number" (the targets' ports are the same), and one slice of its pods.
func web(ports []string, pods ...*corev1.Pod) []runtime.Object {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "uid-web"}}
	svc.Spec.Type, svc.Spec.ClusterIP, svc.Spec.ClusterIPs = corev1.ServiceTypeClusterIP, "10.96.0.10", []string{"10.96.0.10"}
	svc.Spec.IPFamilies, svc.Spec.Selector = []corev1.IPFamily{corev1.IPv4Protocol}, map[string]string{"app": "web"}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "ns", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, text := range ports {
		name, number, _ := strings.Cut(text, "=")
		n, tcp := int32(atoi(number)), corev1.ProtocolTCP
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: name, Port: n, Protocol: tcp})
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &name, Port: &n, Protocol: &tcp})
	}
	out := []runtime.Object{svc, slice}
	ready := true
	for _, p := range pods {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{p.Status.PodIP},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name},
		})
		out = append(out, p)
	}
	return out
}

// oneWeb is a Service "web" with one port, 80, and one pod, at 10.1.0.1.
func oneWeb() []runtime.Object { return web([]string{"=80"}, pod("web-a", "10.1.0.1", "=80")) }

// original is kube-apiserver's handler, as far as it is a library: what finds the target is given.
func (s *stage) original(location string) *httptest.Server {
	u, err := url.Parse(location)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.serve(upstream{*u, s.clusterTransport()})
}
