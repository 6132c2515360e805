package origin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	apiproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"varco.dev/internal/httpproxy"
)

// kubeToken is the credential of the kubeconfig. No app may ever see it.
const kubeToken = "kubeconfig-credential"

// apiServer is an API server with its kubelet: it keeps objects, it refuses who has no credential, and what it forwards
// goes to real TCP listeners.
type apiServer struct {
	*httptest.Server
	kubelet *httptest.Server

	mu        sync.Mutex
	services  map[string]*corev1.Service // by namespace/name
	slices    map[string][]discoveryv1.EndpointSlice
	pods      map[string]*corev1.Pod
	listeners map[string]string         // where namespace/pod:port is really
	refuse    func(*http.Request) error // may refuse any request
	seen      map[string]int            // requests, by what they are about
	pairs     []*pair
	sessions  []httpstream.Connection
	lanes     int // stream pairs ever opened
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{
		services: map[string]*corev1.Service{}, slices: map[string][]discoveryv1.EndpointSlice{}, pods: map[string]*corev1.Pod{},
		listeners: map[string]string{}, seen: map[string]int{},
	}
	s.kubelet = httptest.NewServer(http.HandlerFunc(s.portForward))
	s.Server = httptest.NewUnstartedServer(s)
	s.Server.EnableHTTP2 = true
	s.Server.StartTLS()
	t.Cleanup(func() {
		s.cut()
		s.Server.CloseClientConnections()
		s.Server.Close()
		s.kubelet.CloseClientConnections()
		s.kubelet.Close()
	})
	return s
}

func (s *apiServer) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[what]++
}

func (s *apiServer) counted(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[what]
}

func (s *apiServer) keep(p *pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pairs = append(s.pairs, p)
}

// reset resets all connections, and leaves their sessions alone.
func (s *apiServer) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pairs {
		p.data.Reset()
		p.failures.Reset()
	}
}

// cut ends all port-forward sessions, as the restart of a kubelet does.
func (s *apiServer) cut() {
	s.mu.Lock()
	sessions := s.sessions
	s.sessions = nil
	s.mu.Unlock()
	for _, c := range sessions {
		c.Close()
	}
	s.kubelet.CloseClientConnections()
}

func (s *apiServer) setRefuse(f func(*http.Request) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+kubeToken {
		httpproxy.Fail(w, r, httpproxy.Status(401, metav1.StatusReasonUnauthorized, "Unauthorized"))
		return
	}
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		if err := refuse(r); err != nil {
			httpproxy.Fail(w, r, err)
			return
		}
	}
	parts := strings.SplitN(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/", 8)
	switch {
	case len(parts) == 6 && parts[0] == "apis":
		s.count("endpointslices")
		_, name, _ := strings.Cut(r.URL.Query().Get("labelSelector"), "=")
		s.mu.Lock()
		defer s.mu.Unlock()
		answer(w, &discoveryv1.EndpointSliceList{Items: s.slices[parts[4]+"/"+name]})
	case len(parts) == 6:
		s.count(parts[4])
		s.object(w, r, parts[4], parts[3], parts[5])
	case len(parts) == 7 && parts[6] == "portforward":
		s.count("portforward")
		s.forward(w, r, parts[3], parts[5])
	case len(parts) >= 7 && parts[6] == "proxy":
		s.count("proxy")
		s.proxy(w, r, parts[3], parts[5])
	default:
		httpproxy.Fail(w, r, httpproxy.Status(404, metav1.StatusReasonNotFound, "the server could not find the requested resource"))
	}
}

func answer(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object)
}

func (s *apiServer) object(w http.ResponseWriter, r *http.Request, resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	service, pod := s.services[namespace+"/"+name], s.pods[namespace+"/"+name]
	switch {
	case resource == "services" && service != nil:
		answer(w, service)
	case resource == "pods" && pod != nil:
		answer(w, pod)
	default:
		httpproxy.Fail(w, r, missing(resource, name))
	}
}

func missing(resource, name string) error {
	err := httpproxy.Status(404, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", resource, name))
	err.ErrStatus.Details = &metav1.StatusDetails{Kind: resource, Name: name}
	return err
}

// forward is pods/portforward as kube-apiserver has it: WebSockets are unpacked, SPDY goes to the kubelet as it is.
func (s *apiServer) forward(w http.ResponseWriter, r *http.Request, namespace, pod string) {
	s.mu.Lock()
	known := s.pods[namespace+"/"+pod] != nil
	s.mu.Unlock()
	if !known {
		httpproxy.Fail(w, r, missing("pods", pod))
		return
	}
	location, _ := url.Parse(s.kubelet.URL + "/" + namespace + "/" + pod)
	handler := http.Handler(proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{}))
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		s.count("websocket")
		handler = apiproxy.NewTunnelingHandler(handler)
	}
	handler.ServeHTTP(w, r)
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, r *http.Request, err error) { httpproxy.Fail(w, r, err) }

// proxy is services/proxy and pods/proxy as kube-apiserver has it: links and redirects are rewritten.
func (s *apiServer) proxy(w http.ResponseWriter, r *http.Request, namespace, name string) {
	parts := strings.Split(name, ":")
	scheme := "http"
	if len(parts) == 3 {
		scheme = parts[0]
		parts = parts[1:]
	}
	s.mu.Lock()
	at := s.listeners[namespace+"/"+strings.Join(parts, ":")]
	s.mu.Unlock()
	if at == "" {
		httpproxy.Fail(w, r, httpproxy.Status(503, metav1.StatusReasonServiceUnavailable, "no endpoints available for service "+name))
		return
	}
	_, rest, _ := strings.Cut(r.URL.Path, "/proxy")
	r.Header.Del("Authorization") // the API server's authentication takes it
	handler := proxy.NewUpgradeAwareHandler(&url.URL{Scheme: scheme, Host: at, Path: rest, RawQuery: r.URL.RawQuery}, nil, true, false, responder{})
	handler.ServeHTTP(w, r)
}

// portForward is the kubelet.
func (s *apiServer) portForward(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	pod := strings.TrimPrefix(r.URL.Path, "/")
	pairs := &pairs{open: map[string]*pair{}, made: s.keep, dial: func(port string) (net.Conn, error) { return s.connect(pod, port) }}
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, pairs.add)
	if conn == nil {
		return
	}
	s.mu.Lock()
	s.sessions = append(s.sessions, conn)
	s.mu.Unlock()
	<-conn.CloseChan()
	conn.Close()
}

func (s *apiServer) connect(pod, port string) (net.Conn, error) {
	s.mu.Lock()
	s.lanes++
	at := s.listeners[pod+":"+port]
	s.mu.Unlock()
	if at == "" {
		return nil, fmt.Errorf("error forwarding port %s to pod 0123abcd, uid : dial tcp4 127.0.0.1:%s: connect: connection refused", port, port)
	}
	return net.Dial("tcp", at)
}

// pairs finds the two streams of a connection.
type pairs struct {
	dial func(port string) (net.Conn, error)
	mu   sync.Mutex
	open map[string]*pair
	made func(*pair)
}

type pair struct{ data, failures httpstream.Stream }

func (p *pairs) add(stream httpstream.Stream, accepted <-chan struct{}) error {
	id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
	p.mu.Lock()
	defer p.mu.Unlock()
	both := p.open[id]
	if both == nil {
		both = &pair{}
		p.open[id] = both
	}
	switch stream.Headers().Get(corev1.StreamType) {
	case corev1.StreamTypeData:
		both.data = stream
	case corev1.StreamTypeError:
		both.failures = stream
	default:
		return errors.New("unknown type of stream")
	}
	if both.data != nil && both.failures != nil {
		delete(p.open, id)
		p.made(both)
		go func() { <-accepted; p.forward(both) }()
	}
	return nil
}

// forward is what the kubelet and a container runtime do with a connection.
func (p *pairs) forward(both *pair) {
	defer both.data.Close()
	defer both.failures.Close()
	conn, err := p.dial(both.data.Headers().Get(corev1.PortHeader))
	if err != nil {
		fmt.Fprint(both.failures, err)
		both.data.Reset()
		both.failures.Reset()
		return
	}
	defer conn.Close()
	go func() {
		io.Copy(conn, both.data)
		conn.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(both.data, conn)
}
