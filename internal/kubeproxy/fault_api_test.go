package kubeproxy_test

import (
	"encoding/json"
	"fmt"
	"io"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// apiStub is an API server that can go away and come back, cut its streams and forget its history. Kinds are named by the
// last part of their path, "services".
type apiStub struct {
	listen func(network, address string) (net.Listener, error)
	http   *httptest.Server

	mu      sync.Mutex // guards the fields below
	version int
	objects map[string]map[string]storedObject // kind -> namespace/name
	streams map[chan []byte]string             // -> kind
	lists   map[string]int                     // how often a kind was listed
}

type storedObject struct {
	object runtime.Object
	text   json.RawMessage
}

// newAPIStub listens on loopback: this machine's, or with a listen that of a namespace.
func newAPIStub(t *testing.T, listen func(network, address string) (net.Listener, error)) *apiStub {
	t.Helper()
	s := &apiStub{listen: listen, objects: map[string]map[string]storedObject{}, streams: map[chan []byte]string{}, lists: map[string]int{}}
	s.start(t, "127.0.0.1:0")
	t.Cleanup(s.stop)
	return s
}

func (s *apiStub) start(t *testing.T, address string) {
	t.Helper()
	l, err := s.listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s.http = &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	s.http.Start()
}

// stop cuts all connections and listens no more; restart listens again where it did before.
func (s *apiStub) stop() {
	s.http.Listener.Close()
	s.http.CloseClientConnections()
	s.cut()
	s.http.Close()
}

func (s *apiStub) restart(t *testing.T) { s.start(t, s.http.Listener.Addr().String()) }

// cut ends all streams.
func (s *apiStub) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.streams {
		close(c)
	}
	clear(s.streams)
}

// expire ends all streams, and none can be taken up where it ended: as with the answer 410 of a real API server.
func (s *apiStub) expire() {
	s.mu.Lock()
	s.version++
	s.mu.Unlock()
	s.cut()
}

func clientOf(t *testing.T, url string) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(&rest.Config{Host: url, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// set adds or changes objects.
func (s *apiStub) set(objects ...runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, obj := range objects {
		kind, group, name := kindOf(obj)
		if s.objects[kind] == nil {
			s.objects[kind] = map[string]storedObject{}
		}
		s.version++
		m := obj.(metav1.Object)
		obj.GetObjectKind().SetGroupVersionKind(group.WithKind(name))
		m.SetResourceVersion(fmt.Sprint(s.version))
		text, err := json.Marshal(obj)
		if err != nil {
			panic(err)
		}
		how := "ADDED"
		if _, ok := s.objects[kind][keyOf(m)]; ok {
			how = "MODIFIED"
		}
		s.objects[kind][keyOf(m)] = storedObject{obj, text}
		s.tell(kind, how, text)
	}
}

// delete removes objects, of which only kind and name count.
func (s *apiStub) delete(objects ...runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, obj := range objects {
		kind, _, _ := kindOf(obj)
		key := keyOf(obj.(metav1.Object))
		if old, ok := s.objects[kind][key]; ok {
			delete(s.objects[kind], key)
			s.version++
			s.tell(kind, "DELETED", old.text)
		}
	}
}

// all returns the objects that there are.
func (s *apiStub) all() (out []runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(s.objects)) {
		for _, o := range s.objects[kind] {
			out = append(out, o.object)
		}
	}
	return out
}

func (s *apiStub) listed(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists[kind]
}

// backlog is how many events a stream may be behind; one that is further behind is cut, as real ones are.
const backlog = 4096

func (s *apiStub) tell(kind, how string, text json.RawMessage) {
	for c, k := range s.streams {
		if k != kind {
			continue
		}
		select {
		case c <- event(how, text):
		default:
			close(c)
			delete(s.streams, c)
		}
	}
}

func event(how string, text json.RawMessage) []byte {
	return fmt.Appendf(nil, `{"type":%q,"object":%s}`+"\n", how, text)
}

// ServeHTTP answers lists and watches, and takes events.
func (s *apiStub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	kind := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	_, group, name := kindNamed(kind)
	switch {
	case r.Method == http.MethodPost:
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		io.Copy(w, r.Body)
	case name == "":
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, kind)
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lists[kind]++
		fmt.Fprintf(w, `{"kind":"%sList","apiVersion":%q,"metadata":{"resourceVersion":"%d"},"items":[`, name, group, s.version)
		separator := ""
		for _, o := range s.objects[kind] {
			fmt.Fprintf(w, "%s%s", separator, o.text)
			separator = ","
		}
		fmt.Fprint(w, "]}")
	}
}

// watch streams events. It remembers none: who has not seen all must list again.
func (s *apiStub) watch(w http.ResponseWriter, r *http.Request, kind string) {
	first, events := s.open(r, kind)
	for {
		if _, err := w.Write(first); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			s.mu.Lock()
			delete(s.streams, events)
			s.mu.Unlock()
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			first = e
		}
	}
}

// open begins a stream and returns what it begins with: all objects, that they are not known any more, or nothing.
func (s *apiStub) open(r *http.Request, kind string) (first []byte, events chan []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events = make(chan []byte, backlog)
	from := r.URL.Query().Get("resourceVersion")
	switch {
	case r.URL.Query().Get("sendInitialEvents") == "true":
		s.lists[kind]++
		for _, o := range s.objects[kind] {
			first = append(first, event("ADDED", o.text)...)
		}
		first = append(first, event("BOOKMARK", s.bookmark(kind))...)
	case from != "" && from != fmt.Sprint(s.version):
		close(events)
		return event("ERROR", json.RawMessage(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`)), events
	}
	s.streams[events] = kind
	return first, events
}

// bookmark ends the first events of a stream.
func (s *apiStub) bookmark(kind string) json.RawMessage {
	_, group, name := kindNamed(kind)
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d","annotations":{%q:"true"}}}`,
		name, group, s.version, metav1.InitialEventsAnnotationKey)
}

func keyOf(m metav1.Object) string { return m.GetNamespace() + "/" + m.GetName() }

func kindOf(obj runtime.Object) (path string, group schema.GroupVersion, name string) {
	switch obj.(type) {
	case *discoveryv1.EndpointSlice:
		return kindNamed("endpointslices")
	case *networkingv1.ServiceCIDR:
		return kindNamed("servicecidrs")
	case *corev1.Node:
		return kindNamed("nodes")
	}
	return kindNamed("services")
}

func kindNamed(path string) (_ string, group schema.GroupVersion, name string) {
	switch path {
	case "endpointslices":
		return path, discoveryv1.SchemeGroupVersion, "EndpointSlice"
	case "servicecidrs":
		return path, networkingv1.SchemeGroupVersion, "ServiceCIDR"
	case "nodes":
		return path, corev1.SchemeGroupVersion, "Node"
	case "services":
		return path, corev1.SchemeGroupVersion, "Service"
	}
	return path, group, ""
}
