package origin_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/kubectlproxy/cluster"
	"varco.dev/internal/kubectlproxy/origin"
)

// stage is a cluster, Origins that serve it on a local port, and a browser.
type stage struct {
	*apiServer
	t       *testing.T
	origins *origin.Origins
	pass    *httpproxy.Proxy
	server  *httptest.Server
	stop    func()
	ip      int
}

func newStage(t *testing.T, mode string) *stage {
	t.Helper()
	s := &stage{apiServer: newAPIServer(t), t: t}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	kubeconfig := *clientcmdapi.NewConfig()
	kubeconfig.Clusters["lab"] = &clientcmdapi.Cluster{Server: s.URL, InsecureSkipTLSVerify: true}
	kubeconfig.AuthInfos["user"] = &clientcmdapi.AuthInfo{Token: kubeToken}
	kubeconfig.Contexts["Lab_1"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: "user"}
	kubeconfig.CurrentContext = "Lab_1"
	clusters := cluster.New(cluster.Config{Log: log, Contexts: []string{cluster.AllContexts}, ServerPath: true,
		Load: func(context string) clientcmd.ClientConfig {
			return clientcmd.NewDefaultClientConfig(kubeconfig, &clientcmd.ConfigOverrides{CurrentContext: context})
		}})
	s.pass = httpproxy.New(httpproxy.Config{Log: log})
	s.origins = origin.New(origin.Config{Clusters: clusters, Proxy: s.pass, Mode: mode, Log: log})
	s.serve()
	return s
}

func (s *stage) serve() {
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, ok, err := origin.Parse(r.Host)
		if !ok || err != nil {
			http.Error(w, "not an origin", http.StatusTeapot)
			return
		}
		s.origins.Serve(w, r, at)
	}))
	s.server.Config.Protocols = new(http.Protocols)
	s.server.Config.Protocols.SetHTTP1(true)
	s.server.Config.Protocols.SetUnencryptedHTTP2(true)
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.server.Start()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.origins.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}()
	s.stop = func() {
		s.server.CloseClientConnections()
		s.server.Close()
		cancel()
		<-ended
	}
	s.t.Cleanup(func() { s.stop() })
}

// app starts an HTTP app and returns its address.
func (s *stage) app(handler http.HandlerFunc, change ...func(*httptest.Server)) string {
	app := httptest.NewUnstartedServer(handler)
	app.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	for _, f := range change {
		f(app)
	}
	if app.URL == "" {
		app.Start()
	}
	s.t.Cleanup(func() { app.CloseClientConnections(); app.Close() })
	return app.Listener.Addr().String()
}

// pod adds a pod of the namespace shop whose port really is at an address.
func (s *stage) pod(name string, port int, at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods["shop/"+name] = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}},
		}}},
	}
	if at != "" {
		s.listeners[fmt.Sprintf("shop/%s:%d", name, port)] = at
	}
}

// service adds a Service of the namespace shop with ready pods, whose target port is the port + 8000.
func (s *stage) service(name string, port corev1.ServicePort, pods ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	target := port.Port + 8000
	port.TargetPort = intstr.FromInt32(target)
	if port.Protocol == "" {
		port.Protocol = corev1.ProtocolTCP
	}
	s.services["shop/"+name] = &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{port}},
	}
	slice := discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &port.Name, Port: &target, Protocol: &port.Protocol}},
	}
	for _, pod := range pods {
		s.ip++
		ready := true
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{"10.0.0." + strconv.Itoa(s.ip)}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: pod},
		})
	}
	s.slices["shop/"+name] = []discoveryv1.EndpointSlice{slice}
}

// web is a Service with one pod that runs an app on port 80.
func (s *stage) web(name string, handler http.HandlerFunc, change ...func(*httptest.Server)) {
	at := s.app(handler, change...)
	s.pod(name+"-0", 8080, at)
	s.service(name, corev1.ServicePort{Name: "http", Port: 80}, name+"-0")
	s.mu.Lock()
	s.listeners["shop/"+name+":80"] = at // for services/proxy
	s.mu.Unlock()
}

// client is a browser: every name below localhost is this computer.
func (s *stage) client() *http.Client {
	transport := &http.Transport{DialContext: s.dial, DisableCompression: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (s *stage) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.server.Listener.Addr().String())
}

// port is what follows the host in the browser's URL.
func (s *stage) port() string {
	_, port, _ := net.SplitHostPort(s.server.Listener.Addr().String())
	return ":" + port
}

// get asks for http://<host><port>/<path> and returns the answer with its body.
func (s *stage) get(host, path string, change ...func(*http.Request)) (*http.Response, string) {
	s.t.Helper()
	return s.do(s.client(), http.MethodGet, host, path, nil, change...)
}

func (s *stage) do(client *http.Client, method, host, path string, body io.Reader, change ...func(*http.Request)) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+host+s.port()+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range change {
		f(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s%s: reading the answer: %v", method, host, path, err)
	}
	return resp, string(text)
}

// wantStatus checks for an error that says something.
func (s *stage) wantStatus(host string, code int, words ...string) {
	s.t.Helper()
	resp, text := s.get(host, "/")
	if resp.StatusCode != code || resp.Header.Get("Content-Type") != "application/json" {
		s.t.Errorf("%s: %d %s, want a Status of code %d: %s", host, resp.StatusCode, resp.Header.Get("Content-Type"), code, text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			s.t.Errorf("%s: the answer does not say %q: %s", host, word, text)
		}
	}
}

// parsed is a URL that must be one.
func parsed(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func queryEscape(text string) string { return url.QueryEscape(text) }

// forbidTunnels is an API server whose user may not create pods/portforward.
func forbidTunnels(r *http.Request) error {
	if strings.HasSuffix(r.URL.Path, "/portforward") {
		return httpproxy.Status(403, metav1.StatusReasonForbidden, `pods "web-0" is forbidden: User "u" cannot create resource "pods/portforward"`)
	}
	return nil
}
