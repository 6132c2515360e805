package apiwatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"varco.dev/internal/service"
)

// labelServiceProxyName marks Services that another proxy serves (well-known label).
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// shutdownTimeout bounds the wait for informers at the end.
const shutdownTimeout = time.Second

// askTimeout bounds the question why there is no list yet.
const askTimeout = 5 * time.Second

// slowSync is how long the first listing may take before the log says so, again and again.
const slowSync = 10 * time.Second

// Config of a Watcher.
type Config struct {
	Client   kubernetes.Interface
	NodeName string                     // the node whose addresses NodeAddrs is told
	Update   func(func(*service.Table)) // runs a change of the table; must not block for long
	Node     func(addrs []netip.Addr)   // told the own node's addresses, when they are known and when they change
	Log      *slog.Logger
}

// Watcher keeps a service.Table as the API server says.
type Watcher struct {
	config Config
	synced chan struct{}

	mu  sync.Mutex // guards err
	err error      // the last one of a list or watch
}

// New returns a watcher that does nothing before Run.
func New(c Config) *Watcher { return &Watcher{config: c, synced: make(chan struct{})} }

// Synced is closed once all objects that the API server had at the start are in the table.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// Run watches until the context ends; then it returns nil. An API server that goes away is waited for.
func (w *Watcher) Run(ctx context.Context) error {
	factories, handlers, err := w.subscribe()
	if err != nil {
		return err
	}
	for _, f := range factories {
		f.StartWithContext(ctx)
	}
	defer shutdown(factories)
	for !w.waitFor(ctx, handlers) {
		if ctx.Err() != nil {
			return nil
		}
		w.config.Log.Warn("still waiting for the API server to list Services, EndpointSlices and this node", "error", w.reason(ctx))
	}
	close(w.synced)
	<-ctx.Done()
	return nil
}

// shutdown waits for the informers to end, but not for long: one that waits to try a dead API server again sleeps on for
// up to half a minute, and does nothing any more.
func shutdown(factories []informers.SharedInformerFactory) {
	ended := make(chan struct{})
	go func() {
		for _, f := range factories {
			f.Shutdown()
		}
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(shutdownTimeout):
	}
}

func (w *Watcher) waitFor(ctx context.Context, handlers []cache.InformerSynced) bool {
	ctx, cancel := context.WithTimeout(ctx, slowSync)
	defer cancel()
	return cache.WaitForCacheSync(ctx.Done(), handlers...)
}

// subscribe adds a handler for each kind of object. Objects are selected on the server: no Service without a ClusterIP,
// nothing that belongs to another proxy, no node but the own.
func (w *Watcher) subscribe() ([]informers.SharedInformerFactory, []cache.InformerSynced, error) {
	services := w.factory(func(o *metav1.ListOptions) {
		o.LabelSelector = "!" + labelServiceProxyName
		o.FieldSelector = fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String()
	})
	slices := w.factory(func(o *metav1.ListOptions) { o.LabelSelector = "!" + corev1.IsHeadlessService })
	nodes := w.factory(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", w.config.NodeName).String()
	})
	var synced []cache.InformerSynced
	var errs []error
	add := func(i cache.SharedIndexInformer, h cache.ResourceEventHandler) {
		r, err := i.AddEventHandler(h)
		err = errors.Join(err, i.SetWatchErrorHandlerWithContext(w.remember))
		if err != nil {
			errs = append(errs, fmt.Errorf("watch the API server: %w", err))
			return
		}
		synced = append(synced, r.HasSynced)
	}
	add(services.Core().V1().Services().Informer(), keep(w, "Service", Service, (*service.Table).SetService, (*service.Table).DeleteService))
	add(slices.Discovery().V1().EndpointSlices().Informer(), keep(w, "EndpointSlice", Slice, (*service.Table).SetSlice, (*service.Table).DeleteSlice))
	add(nodes.Core().V1().Nodes().Informer(), handle(w.setNode, func(*corev1.Node) {}))
	return []informers.SharedInformerFactory{services, slices, nodes}, synced, errors.Join(errs...)
}

// remember keeps the error for the log line that says what is waited for, and hands it on.
func (w *Watcher) remember(ctx context.Context, r *cache.Reflector, err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	cache.DefaultWatchErrorHandler(ctx, r, err)
}

// reason says why there is no list yet. client-go keeps a refused connection to itself, so it is asked for.
func (w *Watcher) reason(ctx context.Context) error {
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := w.config.Client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return err
	}
	return errors.New("it answers, but not with these lists")
}

func (w *Watcher) factory(options func(*metav1.ListOptions)) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(w.config.Client, 0,
		informers.WithTweakListOptions(options), informers.WithTransform(strip))
}

// strip removes what no proxy reads, which is a good part of the memory.
func strip(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// handle makes a handler of two functions.
func handle[T any](set, del func(T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { set(obj.(T)) },
		UpdateFunc: func(_, obj any) { set(obj.(T)) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(T); ok {
				del(o)
			}
		},
	}
}

// keep makes a handler that has the table hold what objects of one kind convert to; those that are not ours to serve, or
// no longer, are deleted from it.
func keep[O metav1.Object, S any](w *Watcher, kind string, convert func(O) (S, bool, []error),
	set func(*service.Table, S), del func(*service.Table, service.Name),
) cache.ResourceEventHandler {
	gone := func(obj O) {
		n := service.Name{Namespace: obj.GetNamespace(), Name: obj.GetName()}
		w.config.Update(func(t *service.Table) { del(t, n) })
	}
	return handle(func(obj O) {
		s, ok, problems := convert(obj)
		w.complain(kind, obj, problems)
		if !ok {
			gone(obj)
			return
		}
		w.config.Update(func(t *service.Table) { set(t, s) })
	}, gone)
}

func (w *Watcher) setNode(obj *corev1.Node) { w.config.Node(NodeAddrs(obj)) }

// complain logs what is wrong with an object; the rest of it is served.
func (w *Watcher) complain(kind string, obj metav1.Object, problems []error) {
	if err := errors.Join(problems...); err != nil {
		w.config.Log.Warn("leaves out a part of an object that is not valid",
			"kind", kind, "namespace", obj.GetNamespace(), "name", obj.GetName(), "error", err)
	}
}
