package https_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// changing is what API servers tell of one ConfigMap that changes.
type changing struct {
	lists atomic.Int64

	mu   sync.Mutex // guards the fields below
	now  int
	news chan struct{} // closed with the next change
}

func (c *changing) change() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	close(c.news)
	c.news = make(chan struct{})
	return c.now
}

func (c *changing) look() (int, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, c.news
}

func configMap(version int) corev1.ConfigMap {
	return corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", ResourceVersion: strconv.Itoa(version)},
	}
}

// ServeHTTP answers lists, and watches from where they begin: each event in two parts.
func (c *changing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case q.Get("sendInitialEvents") != "": // an API server that does not stream lists
		w.WriteHeader(http.StatusUnprocessableEntity)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid})
		return
	case q.Get("watch") == "":
		c.lists.Add(1)
		now, _ := c.look()
		json.NewEncoder(w).Encode(corev1.ConfigMapList{
			TypeMeta: metav1.TypeMeta{Kind: "ConfigMapList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(now)}, Items: []corev1.ConfigMap{configMap(now)},
		})
		return
	}
	flush := http.NewResponseController(w)
	for sent, _ := strconv.Atoi(q.Get("resourceVersion")); ; {
		now, news := c.look()
		for ; sent < now; sent++ {
			object, _ := json.Marshal(configMap(sent + 1))
			if _, err := fmt.Fprintf(w, `{"type":"MODIFIED","object":%s`, object); err != nil || flush.Flush() != nil {
				return
			}
			io.WriteString(w, "}\n")
		}
		if flush.Flush() != nil {
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

// TestNobodyListsAgain wants client-go's reflectors to go on where they were when their watches are ended: to move them, for a
// backend that is lost, and for one that breaks.
func TestNobodyListsAgain(t *testing.T) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			c := &changing{news: make(chan struct{})}
			c.change()
			for _, a := range s.apis {
				a.answers(c.ServeHTTP)
			}
			clients, err := kubernetes.NewForConfigAndClient(&rest.Config{Host: s.url, QPS: -1}, s.client(t, s.clients.pair(t, "bob"), version))
			if err != nil {
				t.Fatal(err)
			}
			store := cache.NewStore(cache.MetaNamespaceKeyFunc)
			reflector := cache.NewReflector(cache.NewListWatchFromClient(clients.CoreV1().RESTClient(), "configmaps", "a", fields.Everything()), &corev1.ConfigMap{}, store, 0)
			go reflector.RunWithContext(t.Context())
			sees := func(version int) func() bool {
				return func() bool {
					object, ok, _ := store.GetByKey("a/b")
					return ok && object.(*corev1.ConfigMap).ResourceVersion == strconv.Itoa(version)
				}
			}
			waitFor(t, sees(1))
			waitFor(t, func() bool { // which it does once the watch has lasted for long enough
				return slices.ContainsFunc(s.apis, func(a *api) bool { return s.Shed(a.addr, 1) == 1 })
			})
			ended := 0
			for n, end := 0, time.Now().Add(2*time.Second); time.Now().Before(end); n++ {
				waitFor(t, sees(c.change())) // so that no watch is without an event
				one := s.apis[n%3]
				if n/3%2 == 0 {
					ended += s.End(one.addr)
				} else {
					one.CloseClientConnections()
				}
			}
			waitFor(t, sees(c.change()))
			if n := c.lists.Load(); n != 1 || ended == 0 {
				t.Errorf("it has listed %d times; %d watches were ended", n, ended)
			}
		})
	}
}
