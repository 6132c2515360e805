package apiwatch

import (
	"iter"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// feeds returns a feed for each kind of object. Objects are selected on the server: no Service without a ClusterIP,
// nothing that belongs to another proxy, no node but the own. The last one is of what traffic does not depend on.
func (w *Watcher) feeds() []feed.Feed {
	return []feed.Feed{w.services(), w.slices(), w.node(), w.serviceCIDRs()}
}

func (w *Watcher) services() feed.Feed {
	s := w.serviceSink()
	return feed.Reflect(w.source, s, &corev1.Service{}, w.config.Client.CoreV1().Services(""), metav1.ListOptions{
		LabelSelector: "!" + labelServiceProxyName,
		FieldSelector: fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String(),
	})
}

func (w *Watcher) serviceSink() *feed.Sink[*corev1.Service, *service.Service] {
	s := feed.NewSink(w.source, "Service", w.convertService)
	s.Set = func(_ service.Name, v *service.Service) { w.config.Update(func(t *service.Table) { t.SetService(v) }) }
	s.Del = func(n service.Name) { w.config.Update(func(t *service.Table) { t.DeleteService(n) }) }
	s.Replace = func(all []feed.Item[*service.Service]) {
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

func (w *Watcher) slices() feed.Feed {
	s := w.sliceSink()
	return feed.Reflect(w.source, s, &discoveryv1.EndpointSlice{}, w.config.Client.DiscoveryV1().EndpointSlices(""), metav1.ListOptions{
		LabelSelector: "!" + corev1.IsHeadlessService,
	})
}

func (w *Watcher) sliceSink() *feed.Sink[*discoveryv1.EndpointSlice, *service.Slice] {
	s := feed.NewSink(w.source, "EndpointSlice", w.convertSlice)
	s.Set = func(_ service.Name, v *service.Slice) { w.config.Update(func(t *service.Table) { t.SetSlice(v) }) }
	s.Del = func(n service.Name) { w.config.Update(func(t *service.Table) { t.DeleteSlice(n) }) }
	s.Replace = func(all []feed.Item[*service.Slice]) {
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

func (w *Watcher) node() feed.Feed {
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
	s := feed.NewSink(w.source, "Node", func(obj *corev1.Node) (Node, bool, []error) {
		n, problems := NodeOf(obj)
		return n, true, problems
	})
	s.Set = func(_ service.Name, n Node) { tell(n) }
	s.Del = func(service.Name) { gone() }
	s.Replace = func(all []feed.Item[Node]) {
		if len(all) == 0 {
			gone()
		}
		for _, i := range all {
			tell(i.Value)
		}
	}
	return feed.Reflect(w.source, s, &corev1.Node{}, w.config.Client.CoreV1().Nodes(), metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", w.config.NodeName).String(),
	})
}

func values[S any](items []feed.Item[S]) iter.Seq[S] {
	return func(yield func(S) bool) {
		for _, i := range items {
			if !yield(i.Value) {
				return
			}
		}
	}
}
