package directory

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// listRetry is the pause before a kind that may not be listed is tried again: roles are often made after what needs them.
const listRetry = 30 * time.Second

// What the log says of a kind that may not be listed.
const (
	eachIsAsked  = "objects may not be listed, so each is asked for when it is needed"
	noneHasSlice = "EndpointSlices may not be listed, so Services have no endpoints"
)

func (d *Directory) feeds() []feed.Feed {
	return []feed.Feed{d.serviceFeed(), d.sliceFeed(), d.podFeed(), d.nodeFeed()}
}

func (d *Directory) serviceFeed() feed.Feed {
	return follow(d, d.serviceSink(), &corev1.Service{}, d.config.Client.CoreV1().Services(""), metav1.ListOptions{}, eachIsAsked)
}

func (d *Directory) serviceSink() *feed.Sink[*corev1.Service, *Service] {
	s := feed.NewSink(d.source, "Service", func(obj *corev1.Service) (*Service, bool, []error) {
		v, problems := ServiceOf(obj)
		return v, true, problems
	})
	connect(s, d.ask.services.forget, d.ask.services.forgetAll,
		func(_ service.Name, v *Service) { d.services.setService(v) }, d.services.delService, d.services.replaceServices)
	return s
}

// sliceFeed follows the slices of all Services, also of headless ones.
func (d *Directory) sliceFeed() feed.Feed {
	return follow(d, d.sliceSink(), &discoveryv1.EndpointSlice{}, d.config.Client.DiscoveryV1().EndpointSlices(""),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName}, noneHasSlice)
}

func (d *Directory) sliceSink() *feed.Sink[*discoveryv1.EndpointSlice, *Slice] {
	s := feed.NewSink(d.source, "EndpointSlice", func(obj *discoveryv1.EndpointSlice) (*Slice, bool, []error) {
		v, ok, problems := SliceOf(obj)
		if ok {
			v = d.services.knownSlice(v)
		}
		return v, ok, problems
	})
	connect(s, func(service.Name) {}, func() {},
		func(_ service.Name, v *Slice) { d.services.setSlice(v) }, d.services.delSlice, d.services.replaceSlices)
	return s
}

// podFeed follows pods that run or may run. Those that have ended, which jobs leave in thousands, are asked for one by one.
func (d *Directory) podFeed() feed.Feed {
	return follow(d, d.podSink(), &corev1.Pod{}, d.config.Client.CoreV1().Pods(""), metav1.ListOptions{
		FieldSelector: fields.AndSelectors(
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
		).String(),
	}, eachIsAsked)
}

func (d *Directory) podSink() *feed.Sink[*corev1.Pod, *podEntry] {
	recent := newRecentPorts()
	s := feed.NewSink(d.source, "Pod", func(obj *corev1.Pod) (*podEntry, bool, []error) {
		e, problems := entryOf(obj)
		e.Ports = recent.share(e.Ports)
		return d.pods.known(e), !e.Terminated, problems
	})
	connect(s, d.ask.pods.forget, d.ask.pods.forgetAll,
		func(_ service.Name, e *podEntry) { d.pods.set(e) }, d.pods.del, func(all []feed.Item[*podEntry]) {
			d.pods.replace(all)
			d.podsListed.Store(true)
		})
	return s
}

func (d *Directory) nodeFeed() feed.Feed {
	return follow(d, d.nodeSink(), &corev1.Node{}, d.config.Client.CoreV1().Nodes(), metav1.ListOptions{}, eachIsAsked)
}

func (d *Directory) nodeSink() *feed.Sink[*corev1.Node, *Node] {
	s := feed.NewSink(d.source, "Node", func(obj *corev1.Node) (*Node, bool, []error) {
		v, problems := NodeOf(obj)
		return v, true, problems
	})
	connect(s, d.ask.nodes.forget, d.ask.nodes.forgetAll, d.nodes.set, d.nodes.del, d.nodes.replace)
	return s
}

// connect hands on what a sink gets. Look-ups forget what they were told of an object that goes, once it is not known any
// more; what is known comes first anyhow.
func connect[O metav1.Object, V any](
	s *feed.Sink[O, V], forget func(service.Name), forgetAll func(),
	set func(service.Name, V), del func(service.Name), replace func([]feed.Item[V]),
) {
	s.Set = set
	s.Del = func(n service.Name) {
		del(n)
		forget(n)
	}
	s.Replace = func(all []feed.Item[V]) {
		replace(all)
		forgetAll()
	}
}

// follow returns a feed that goes without a first list where the API server allows none.
func follow[O metav1.Object, V any, L runtime.Object](
	d *Directory, s *feed.Sink[O, V], example O, client feed.Lister[L], selectors metav1.ListOptions, absent string,
) feed.Feed {
	return feed.Optional(d.source, s, example, client, selectors, listRetry, func(err error) {
		d.config.Log.Warn(absent, "error", err)
	})
}
