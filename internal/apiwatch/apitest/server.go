// Package apitest is an API server for tests of what watches one.
package apitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Server is an API server of few kinds that streams lists as real ones do, which the fake client does not. The kinds are
// named by their part of the path, "services". Selectors are left out of account.
type Server struct {
	http *httptest.Server

	mu      sync.Mutex
	version int
	objects map[string]map[string]runtime.Object // kind -> name
	streams map[chan event]string                // -> kind
	missing map[string]int                       // kinds that are answered with this status
	asked   map[string]int                       // requests of a kind
	lists   int                                  // those of them that were lists, not streams
	gets    map[string]int                       // those of them that were for single objects
}

type event struct {
	Type   string         `json:"type"`
	Object runtime.Object `json:"object"`
}

// New starts a server that is stopped at the end of the test.
func New(t *testing.T) *Server {
	s := &Server{
		objects: map[string]map[string]runtime.Object{}, streams: map[chan event]string{}, missing: map[string]int{}, asked: map[string]int{}, gets: map[string]int{},
	}
	s.listen(t, "127.0.0.1:0")
	t.Cleanup(func() { s.Stop() })
	return s
}

func (s *Server) listen(t *testing.T, address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s.http = &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	s.http.Start()
}

// Stop cuts all connections and listens no more.
func (s *Server) Stop() {
	s.http.CloseClientConnections()
	s.http.Listener.Close()
	s.Cut()
	s.http.Close()
}

// Restart listens again where it did before.
func (s *Server) Restart(t *testing.T) { s.listen(t, s.http.Listener.Addr().String()) }

// Cut ends all streams.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.streams {
		close(c)
	}
	clear(s.streams)
}

// Client returns a client that nothing slows down.
func (s *Server) Client(t *testing.T) kubernetes.Interface {
	c, err := kubernetes.NewForConfig(&rest.Config{Host: s.http.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Set adds or changes an object; quietly, no stream says so.
func (s *Server) Set(kind string, obj runtime.Object, quietly bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[kind] == nil {
		s.objects[kind] = map[string]runtime.Object{}
	}
	s.version++
	m := obj.(metav1.Object)
	group, name := kindOf(kind)
	obj.GetObjectKind().SetGroupVersionKind(group.WithKind(name))
	m.SetResourceVersion(fmt.Sprint(s.version))
	how := "ADDED"
	if s.objects[kind][m.GetName()] != nil {
		how = "MODIFIED"
	}
	s.objects[kind][m.GetName()] = obj
	if !quietly {
		s.tell(kind, event{how, obj})
	}
}

// Delete removes an object of any namespace; quietly, no stream says so.
func (s *Server) Delete(kind, name string, quietly bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj := s.objects[kind][name]
	delete(s.objects[kind], name)
	if s.version++; !quietly {
		s.tell(kind, event{"DELETED", obj})
	}
}

func (s *Server) tell(kind string, e event) {
	for c, k := range s.streams {
		if k == kind {
			c <- e
		}
	}
}

// Requests returns how many requests for a kind there were.
func (s *Server) Requests(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[kind]
}

// Miss has all requests for a kind answered with a status; 0 ends that.
func (s *Server) Miss(kind string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing[kind] = status
}

// Lists returns how many requests were for lists that do not stream.
func (s *Server) Lists() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists
}

// Gets returns how many requests for single objects of a kind there were.
func (s *Server) Gets(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets[kind]
}

// target returns the kind that a path is for, and the object, "" for lists.
func target(path string) (kind, name string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, p := range parts {
		if p == "namespaces" && i+2 < len(parts) {
			parts = parts[i+2:]
			break
		}
	}
	last := len(parts) - 1
	if slices.Contains([]string{"services", "pods", "nodes", "endpointslices", "servicecidrs"}, parts[last]) {
		return parts[last], ""
	}
	return parts[max(0, last-1)], parts[last]
}

// ServeHTTP answers lists, watches and gets.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, name := target(r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	s.mu.Lock()
	s.asked[kind]++
	status := s.missing[kind]
	s.mu.Unlock()
	switch {
	case status != 0:
		reason := map[int]metav1.StatusReason{http.StatusNotFound: metav1.StatusReasonNotFound, http.StatusForbidden: metav1.StatusReasonForbidden}
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason[status], Code: int32(status)})
	case name != "":
		s.get(w, kind, name)
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, kind)
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lists++
		group, name := kindOf(kind)
		json.NewEncoder(w).Encode(map[string]any{
			"kind": name + "List", "apiVersion": group.String(), "metadata": map[string]string{"resourceVersion": fmt.Sprint(s.version)},
			"items": slices.Collect(maps.Values(s.objects[kind])),
		})
	}
}

// get answers with one object, or that there is none.
func (s *Server) get(w http.ResponseWriter, kind, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets[kind]++
	if obj := s.objects[kind][name]; obj != nil {
		json.NewEncoder(w).Encode(obj)
		return
	}
	status := apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name).Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	w.WriteHeader(http.StatusNotFound)
	json.NewEncoder(w).Encode(status)
}

// watch streams events. It remembers none: who has not seen all must list again.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, kind string) {
	events := make(chan event, 1000)
	s.mu.Lock()
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		r.URL.RawQuery = ""
		for _, obj := range s.objects[kind] {
			events <- event{"ADDED", obj}
		}
		events <- event{"BOOKMARK", s.bookmark(kind)}
	}
	if from := r.URL.Query().Get("resourceVersion"); !slices.Contains([]string{"", fmt.Sprint(s.version)}, from) {
		events <- event{"ERROR", &metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonExpired, Code: http.StatusGone,
		}}
	}
	s.streams[events] = kind
	s.mu.Unlock()
	out := json.NewEncoder(w)
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			s.mu.Lock()
			delete(s.streams, events)
			s.mu.Unlock()
			return
		case e, ok := <-events:
			if !ok || out.Encode(e) != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

// bookmark ends the first events of a stream.
func (s *Server) bookmark(kind string) runtime.Object {
	group, name := kindOf(kind)
	obj := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		ResourceVersion: fmt.Sprint(s.version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
	}}
	obj.SetGroupVersionKind(group.WithKind(name))
	return obj
}

func kindOf(path string) (schema.GroupVersion, string) {
	switch path {
	case "endpointslices":
		return discoveryv1.SchemeGroupVersion, "EndpointSlice"
	case "servicecidrs":
		return networkingv1.SchemeGroupVersion, "ServiceCIDR"
	case "nodes":
		return corev1.SchemeGroupVersion, "Node"
	case "pods":
		return corev1.SchemeGroupVersion, "Pod"
	}
	return corev1.SchemeGroupVersion, "Service"
}
