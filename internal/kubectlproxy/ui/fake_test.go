package ui_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"varco.dev/internal/kubectlproxy/ui"
)

// object is an API object as JSON.
type object = map[string]any

// cluster is an API server for one client, with the page on the same origin as the proxy has it. It keeps state and a
// history: lists have pages, watches begin at a version, and versions that it has forgotten are answered 410.
type cluster struct {
	*httptest.Server
	mu      sync.Mutex
	changed chan struct{} // closed at every change
	cuts    chan struct{} // closed to cut every watch
	version int
	oldest  int                          // the first version that a watch may begin at
	objects map[string]map[string]object // resource -> namespace/name
	history map[string][]event
	refuse  func(path string) (int, string) // an error for a path; 0 for none
	lists   map[string]int                  // resource -> lists begun
	asked   chan string                     // what Services' own hosts were asked for: host and path
	info    ui.Info
}

type event struct {
	Version int    `json:"-"`
	Type    string `json:"type"`
	Object  object `json:"object"`
}

// resources are the resources that the page reads, by the last part of their paths.
var resources = []string{"namespaces", "services", "endpointslices"}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		asked: make(chan string, 16), changed: make(chan struct{}), cuts: make(chan struct{}), version: 100,
		objects: map[string]map[string]object{}, history: map[string][]event{}, lists: map[string]int{},
		refuse: func(string) (int, string) { return 0, "" },
		info:   ui.Info{Version: "v1.2.3", APIPrefix: "/k8s/", Cluster: "production", OriginDomain: "localhost"},
	}
	for _, r := range resources {
		c.objects[r] = map[string]object{}
	}
	page := ui.Handler(func(*http.Request) ui.Info {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.info
	})
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.Host, ".svc."):
			c.service(w, r)
		case r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, ui.AssetPrefix):
			page.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/k8s/"), strings.HasPrefix(r.URL.Path, "/clusters/"):
			c.api(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(func() { c.cut(); c.CloseClientConnections(); c.Close() })
	return c
}

// address is where the page is, by its loopback name.
func (c *cluster) address() string { return strings.Replace(c.URL, "127.0.0.1", "localhost", 1) + "/" }

func (c *cluster) service(w http.ResponseWriter, r *http.Request) {
	c.asked <- r.Host + r.URL.RequestURI()
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte("<!doctype html><title>a Service</title><link rel=icon href=data:,>"))
}

func (c *cluster) set(resource string, o object) { c.change(resource, o, "") }

func (c *cluster) remove(resource string, o object) { c.change(resource, o, "DELETED") }

func (c *cluster) change(resource string, o object, kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	meta := o["metadata"].(object)
	meta["resourceVersion"] = strconv.Itoa(c.version)
	key := keyOf(o)
	_, had := c.objects[resource][key]
	switch {
	case kind == "DELETED":
		delete(c.objects[resource], key)
	case had:
		kind = "MODIFIED"
	default:
		kind = "ADDED"
	}
	if kind != "DELETED" {
		c.objects[resource][key] = o
	}
	c.history[resource] = append(c.history[resource], event{c.version, kind, o})
	close(c.changed)
	c.changed = make(chan struct{})
}

func keyOf(o object) string {
	meta := o["metadata"].(object)
	namespace, _ := meta["namespace"].(string)
	return namespace + "/" + meta["name"].(string)
}

// forget drops the history: a watch from before is answered 410.
func (c *cluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.oldest = c.version
	clear(c.history)
}

// cut ends every watch in the middle.
func (c *cluster) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cuts)
	c.cuts = make(chan struct{})
}

// refusing answers requests whose path the function has an error for.
func (c *cluster) refusing(f func(path string) (int, string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = f
}

// describe changes what the page is told about the proxy.
func (c *cluster) describe(f func(*ui.Info)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.info)
}

// listed returns how many lists of a resource were begun.
func (c *cluster) listed(resource string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lists[resource]
}

func (c *cluster) api(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	resource, namespace := parts[len(parts)-1], ""
	if i := slices.Index(parts, "namespaces"); i >= 0 && i+2 < len(parts) {
		namespace = parts[i+1]
	}
	c.mu.Lock()
	code, message := c.refuse(r.URL.Path)
	c.mu.Unlock()
	switch {
	case code != 0:
		fail(w, code, message)
	case !slices.Contains(resources, resource):
		fail(w, http.StatusNotFound, "no resource "+resource)
	case r.URL.Query().Get("watch") == "true":
		c.watch(w, r, resource, namespace)
	default:
		c.list(w, r, resource, namespace)
	}
}

func fail(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object{"kind": "Status", "apiVersion": "v1", "code": code, "message": message})
}

// list answers with a page. The token to continue is the last name of the page before.
func (c *cluster) list(w http.ResponseWriter, r *http.Request, resource, namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	after := r.URL.Query().Get("continue")
	if after == "" {
		c.lists[resource]++
	}
	keys := make([]string, 0, len(c.objects[resource]))
	for key := range c.objects[resource] {
		if key > after && (namespace == "" || strings.HasPrefix(key, namespace+"/")) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	meta := object{"resourceVersion": strconv.Itoa(c.version)}
	if len(keys) > limit {
		keys = keys[:limit]
		meta["continue"] = keys[limit-1]
	}
	items := make([]object, len(keys))
	for i, key := range keys {
		items[i] = c.objects[resource][key]
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object{"metadata": meta, "items": items})
}

func (c *cluster) watch(w http.ResponseWriter, r *http.Request, resource, namespace string) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	c.mu.Lock()
	oldest, cuts := c.oldest, c.cuts
	c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if from < oldest {
		// The API server says so within a stream that has begun, too.
		gone := object{"kind": "Status", "code": http.StatusGone, "message": "too old resource version"}
		_ = json.NewEncoder(w).Encode(event{Type: "ERROR", Object: gone})
		return
	}
	for {
		c.mu.Lock()
		changed := c.changed
		events := slices.Clone(c.history[resource])
		c.mu.Unlock()
		for _, e := range events {
			if e.Version > from && (namespace == "" || strings.HasPrefix(keyOf(e.Object), namespace+"/")) {
				_ = json.NewEncoder(w).Encode(e)
				from = e.Version
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-cuts:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			return
		}
	}
}
