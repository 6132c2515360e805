package apiload

import (
	"context"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
)

// silence is how late an event must be for a watch to count as one that had stopped: more than a busy machine delays it.
const silence = time.Second

// informer is one of client-go's, of the objects, that counts.
type informer struct {
	store      cache.Store
	controller cache.Controller

	mu      sync.Mutex
	lists   []time.Time       // when all objects were asked for, be it by list or by watch
	watches []time.Time       // when a watch was asked for
	late    []event           // that came late
	relists map[string]int    // by object: how many lists there had been at its last event
	counts  map[string]int    // by object: its count at its last event
	jumps   map[time.Time]int // events that never came although all objects were not asked for again
}

// event is one that came late.
type event struct {
	at   time.Time
	late time.Duration
}

func newInformer(client *corev1.CoreV1Client, namespace string) *informer {
	in := &informer{relists: map[string]int{}, counts: map[string]int{}, jumps: map[time.Time]int{}}
	// The namespace has an object of its own, with the certificates of the API.
	selector := fields.OneTermNotEqualSelector("metadata.name", "kube-root-ca.crt").String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			in.listed()
			o.FieldSelector = selector
			return client.ConfigMaps(namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			in.watched(o)
			o.FieldSelector = selector
			return client.ConfigMaps(namespace).Watch(ctx, o)
		},
	}
	in.store, in.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, client), ObjectType: &v1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: in.see, UpdateFunc: func(_, obj any) { in.see(obj) }},
	})
	return in
}

func (in *informer) run(ctx context.Context) { in.controller.RunWithContext(ctx) }

func (in *informer) synced() bool { return in.controller.HasSynced() }

func (in *informer) listed() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.lists = append(in.lists, time.Now())
}

// watched counts a watch; one that sends all objects first takes the place of a list.
func (in *informer) watched(o metav1.ListOptions) {
	in.mu.Lock()
	defer in.mu.Unlock()
	now := time.Now()
	if o.SendInitialEvents != nil && *o.SendInitialEvents {
		in.lists = append(in.lists, now)
		return
	}
	in.watches = append(in.watches, now)
}

// see takes an event. Counts of an object must rise by one, except where the informer asked for all objects again.
func (in *informer) see(obj any) {
	m, ok := obj.(*v1.ConfigMap)
	if !ok {
		return
	}
	count, _ := strconv.Atoi(m.Data[countKey]) // the writer's
	nanos, _ := strconv.ParseInt(m.Data[timeKey], 10, 64)
	now := time.Now()
	in.mu.Lock()
	defer in.mu.Unlock()
	before, known := in.counts[m.Name]
	if known && count != before+1 && in.relists[m.Name] == len(in.lists) {
		in.jumps[now]++
	}
	if late := now.Sub(time.Unix(0, nanos)); known && late > silence && count != before {
		in.late = append(in.late, event{now, late})
	}
	in.counts[m.Name], in.relists[m.Name] = count, len(in.lists)
}

// holds says whether the informer has these versions of the objects.
func (in *informer) holds(versions map[string]string) bool {
	for _, obj := range in.store.List() {
		m, ok := obj.(*v1.ConfigMap)
		if !ok || versions[m.Name] != m.ResourceVersion {
			return false
		}
	}
	return len(in.store.ListKeys()) >= objects
}

// Watches is what informers noticed.
type Watches struct {
	// Informers is how many there are, Moved how many of them missed events for more than a second, and Silent the longest
	// time that one did.
	Informers, Moved int
	Silent           time.Duration
	// Relists is how often informers asked for all objects again, MostRelists how often one of them did, and Again how often
	// they asked for a watch.
	Relists, MostRelists, Again int
	// Lost are events that an informer never saw, other than those before a relist.
	Lost int
}

func watchesSince(all []*informer, begin time.Time) Watches {
	w := Watches{Informers: len(all)}
	for _, in := range all {
		one := in.since(begin)
		w.Relists += one.Relists
		w.MostRelists = max(w.MostRelists, one.Relists)
		w.Again += one.Again
		w.Lost += one.Lost
		w.Silent = max(w.Silent, one.Silent)
		if one.Silent > 0 {
			w.Moved++
		}
	}
	return w
}

func (in *informer) since(begin time.Time) (w Watches) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, t := range in.lists {
		if t.After(begin) {
			w.Relists++
		}
	}
	for _, t := range in.watches {
		if t.After(begin) {
			w.Again++
		}
	}
	for t, n := range in.jumps {
		if t.After(begin) {
			w.Lost += n
		}
	}
	for _, e := range in.late {
		if e.at.After(begin) {
			w.Silent = max(w.Silent, e.late)
		}
	}
	return w
}
