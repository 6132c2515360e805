package apiload

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// Keys of the objects' data: how often the object was written, and when it was written last, in nanoseconds since 1970.
const (
	countKey = "count"
	timeKey  = "time"
)

// writer changes the objects by turns, through whichever API server answers.
type writer struct {
	namespace string
	clients   []*corev1.CoreV1Client
	turn      sync.Mutex               // held while it writes
	next      int                      // of clients: the last that answered
	latest    map[string]*v1.ConfigMap // by name, as they were seen last
}

func newWriter(cfg Config) (*writer, error) {
	w := &writer{namespace: cfg.Namespace, latest: map[string]*v1.ConfigMap{}}
	for _, server := range cfg.Servers {
		conf := rest.CopyConfig(server)
		conf.QPS, conf.UserAgent = -1, "writer"
		client, err := corev1.NewForConfig(conf)
		if err != nil {
			return nil, err
		}
		w.clients = append(w.clients, client)
	}
	return w, nil
}

// prepare makes the namespace and the objects, or begins anew with those that are there.
func (w *writer) prepare(ctx context.Context) error {
	client := w.clients[0]
	_, err := client.Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make namespace %s: %w", w.namespace, err)
	}
	for i := range objects {
		maps := client.ConfigMaps(w.namespace)
		m, err := maps.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: object(i)}, Data: data(0)}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			m, err = maps.Update(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: object(i)}, Data: data(0)}, metav1.UpdateOptions{})
		}
		if err != nil {
			return fmt.Errorf("make object: %w", err)
		}
		w.latest[object(i)] = m
	}
	return nil
}

func object(i int) string { return fmt.Sprintf("object-%d", i) }

func data(count int) map[string]string {
	return map[string]string{countKey: strconv.Itoa(count), timeKey: strconv.FormatInt(time.Now().UnixNano(), 10)}
}

// run writes until ctx ends. Each object's count rises by one with every write, without gaps.
func (w *writer) run(ctx context.Context, rate int) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		w.writeAnywhere(ctx, object(n%objects), 1+n/objects)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// writeAnywhere tries until an API server takes it, or ctx ends.
func (w *writer) writeAnywhere(ctx context.Context, name string, count int) {
	w.turn.Lock()
	defer w.turn.Unlock()
	want := data(count)
	for w.write(ctx, name, want) != nil && ctx.Err() == nil {
		w.next = (w.next + 1) % len(w.clients)
	}
}

// write does not end with ctx, lest nobody know what came of it, but soon enough. A write that was given up may come to
// pass later, even after the next one was tried at another server: each names the version that it changes, so that only
// one of them does.
func (w *writer) write(ctx context.Context, name string, want map[string]string) error {
	one, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	maps := w.clients[w.next].ConfigMaps(w.namespace)
	m := w.latest[name].DeepCopy()
	m.Data = want
	m, err := maps.Update(one, m, metav1.UpdateOptions{})
	if err == nil {
		w.latest[name] = m
		return nil
	}
	if m, look := maps.Get(one, name, metav1.GetOptions{}); look == nil {
		w.latest[name] = m
		if m.Data[countKey] == want[countKey] {
			return nil
		}
	}
	return err
}

// versions are the resource versions of all objects, by name, as etcd has them.
func (w *writer) versions(ctx context.Context) (map[string]string, error) {
	var errs []error
	for _, client := range w.clients {
		one, cancel := context.WithTimeout(ctx, 4*writeTimeout)
		list, err := client.ConfigMaps(w.namespace).List(one, metav1.ListOptions{})
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		versions := map[string]string{}
		for _, m := range list.Items {
			versions[m.Name] = m.ResourceVersion
		}
		return versions, nil
	}
	return nil, fmt.Errorf("ask all API servers for the objects: %w", errors.Join(errs...))
}
