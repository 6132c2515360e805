package apiwatch

import (
	"context"
	"iter"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"varco.dev/internal/service"
)

// feeds returns a feed for each kind of object. Objects are selected on the server: no Service without a ClusterIP,
// nothing that belongs to another proxy, no node but the own. The last one is of what traffic does not depend on.
func (w *Watcher) feeds() []feed {
	return []feed{w.services(), w.slices(), w.node(), w.serviceCIDRs()}
}

func (w *Watcher) services() feed {
	s := w.serviceSink()
	lw := listWatch(w, "Service", w.config.Client.CoreV1().Services(""), metav1.ListOptions{
		LabelSelector: "!" + labelServiceProxyName,
		FieldSelector: fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String(),
	})
	r := cache.NewReflectorWithOptions(lw, &corev1.Service{}, s, options("Service"))
	return feed{r.RunWithContext, s.synced}
}

func (w *Watcher) serviceSink() *sink[*corev1.Service, *service.Service] {
	s := newSink(w, "Service", w.convertService)
	s.set = func(_ service.Name, v *service.Service) { w.config.Update(func(t *service.Table) { t.SetService(v) }) }
	s.del = func(n service.Name) { w.config.Update(func(t *service.Table) { t.DeleteService(n) }) }
	s.replace = func(all []item[*service.Service]) {
		w.config.Update(func(t *service.Table) { t.ReplaceServices(values(all)) })
	}
	return s
}

func (w *Watcher) convertService(obj *corev1.Service) (*service.Service, bool, []error) {
	s, ok, problems := Service(obj)
	if ok && w.config.IgnoreExternalIPs {
		s.ExternalIPs = nil
	}
	return s, ok, problems
}

func (w *Watcher) slices() feed {
	s := w.sliceSink()
	lw := listWatch(w, "EndpointSlice", w.config.Client.DiscoveryV1().EndpointSlices(""), metav1.ListOptions{
		LabelSelector: "!" + corev1.IsHeadlessService,
	})
	r := cache.NewReflectorWithOptions(lw, &discoveryv1.EndpointSlice{}, s, options("EndpointSlice"))
	return feed{r.RunWithContext, s.synced}
}

func (w *Watcher) sliceSink() *sink[*discoveryv1.EndpointSlice, *service.Slice] {
	s := newSink(w, "EndpointSlice", w.convertSlice)
	s.set = func(_ service.Name, v *service.Slice) { w.config.Update(func(t *service.Table) { t.SetSlice(v) }) }
	s.del = func(n service.Name) { w.config.Update(func(t *service.Table) { t.DeleteSlice(n) }) }
	s.replace = func(all []item[*service.Slice]) {
		w.config.Update(func(t *service.Table) { t.ReplaceSlices(values(all)) })
	}
	return s
}

// convertSlice drops times of before the start: how long a change took that this process did not see is not its figure.
func (w *Watcher) convertSlice(obj *discoveryv1.EndpointSlice) (*service.Slice, bool, []error) {
	s, ok, problems := Slice(obj)
	if ok && !s.Triggered.After(w.started) {
		s.Triggered = time.Time{}
	}
	return s, ok, problems
}

func (w *Watcher) node() feed {
	var last Node // only the reflector's goroutine uses it
	tell := func(n Node) {
		n.Addrs = withAddr(n.Addrs, w.config.NodeIP)
		if !n.equal(last) {
			last = n
			w.config.Update(func(t *service.Table) { t.SetNode(n.Table()) })
			w.config.Node(n)
		}
	}
	gone := func() {
		n := last
		n.Exists = false
		tell(n)
	}
	s := newSink(w, "Node", func(obj *corev1.Node) (Node, bool, []error) {
		n, problems := NodeOf(obj)
		return n, true, problems
	})
	s.set = func(_ service.Name, n Node) { tell(n) }
	s.del = func(service.Name) { gone() }
	s.replace = func(all []item[Node]) {
		if len(all) == 0 {
			gone()
		}
		for _, i := range all {
			tell(i.value)
		}
	}
	lw := listWatch(w, "Node", w.config.Client.CoreV1().Nodes(), metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", w.config.NodeName).String(),
	})
	r := cache.NewReflectorWithOptions(lw, &corev1.Node{}, s, options("Node"))
	return feed{r.RunWithContext, s.synced}
}

func values[S any](items []item[S]) iter.Seq[S] {
	return func(yield func(S) bool) {
		for _, i := range items {
			if !yield(i.value) {
				return
			}
		}
	}
}

// lister is the client of one kind of objects.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// listWatch lists and watches the objects that the selectors name, and notes whether the API server answers.
func listWatch[L runtime.Object](w *Watcher, kind string, client lister[L], selectors metav1.ListOptions) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector, o.FieldSelector = selectors.LabelSelector, selectors.FieldSelector
			w.contact.begin(kind)
			list, err := client.List(ctx, o)
			w.contact.end(kind, err)
			if err != nil {
				return nil, err // a nil list in an interface would not be nil
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector, o.FieldSelector = selectors.LabelSelector, selectors.FieldSelector
			w.contact.begin(kind)
			events, err := client.Watch(ctx, o)
			w.contact.end(kind, err)
			return events, err
		},
	}, w.config.Client)
}
