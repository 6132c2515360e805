package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
)

// Watch notes when the API server tells of each change of an EndpointSlice: no proxy can know of it much sooner.
type Watch struct {
	mu   sync.Mutex
	seen map[string]time.Time // version -> when; bounded by the changes of one run
	more chan struct{}        // closed when seen has grown
	err  error

	slices  discoveryclient.EndpointSliceInterface
	version string // of the last event; for run alone
}

// Limits of beginning anew.
const (
	// attempts is how many watches one after the other may end without an event before the last is given up.
	attempts = 10
	// retryPause is before each but the first of them.
	retryPause = 100 * time.Millisecond
)

// StartWatch watches from now until ctx ends. An API server ends each watch after some time, half an hour or more, and
// earlier if the watch lags behind: it begins anew where it was, or by a list if the server has forgotten that version.
func StartWatch(ctx context.Context, client kubernetes.Interface) (*Watch, error) {
	slices := client.DiscoveryV1().EndpointSlices(Namespace)
	now, err := slices.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("find the version to watch from: %w", err)
	}
	events, err := slices.Watch(ctx, metav1.ListOptions{ResourceVersion: now.ResourceVersion})
	if err != nil {
		return nil, fmt.Errorf("watch EndpointSlices: %w", err)
	}
	w := &Watch{seen: map[string]time.Time{}, more: make(chan struct{}), slices: slices, version: now.ResourceVersion}
	go w.run(ctx, events)
	return w, nil
}

func (w *Watch) run(ctx context.Context, events watch.Interface) {
	var err error
	for fruitless := 0; fruitless < attempts; fruitless++ {
		some := false
		if events != nil {
			some, err = w.follow(ctx, events)
		}
		if some {
			fruitless = 0
		}
		if fruitless > 0 && !sleep(ctx, retryPause) || ctx.Err() != nil {
			break
		}
		events, err = w.again(ctx, err)
	}
	if events != nil {
		events.Stop()
	}
	w.note(func() { w.err = errors.Join(errors.New("the watch of EndpointSlices has ended"), err) })
}

// again begins a new watch after one that ended with an error or without one.
func (w *Watch) again(ctx context.Context, ended error) (watch.Interface, error) {
	if apierrors.IsResourceExpired(ended) || apierrors.IsGone(ended) {
		if err := w.list(ctx); err != nil {
			return nil, errors.Join(ended, err)
		}
	}
	return w.slices.Watch(ctx, metav1.ListOptions{ResourceVersion: w.version})
}

// follow notes events until the watch ends. It says whether there were some; an error is the server's.
func (w *Watch) follow(ctx context.Context, events watch.Interface) (some bool, err error) {
	defer events.Stop()
	stop := context.AfterFunc(ctx, events.Stop)
	defer stop()
	for e := range events.ResultChan() {
		at := time.Now()
		meta, ok := e.Object.(metav1.Object)
		if !ok {
			return some, apierrors.FromObject(e.Object)
		}
		some, w.version = true, meta.GetResourceVersion()
		w.note(func() { w.seen[w.version] = at })
	}
	return some, nil
}

// list notes what there is as if the watch had just told of it: late, but not never.
func (w *Watch) list(ctx context.Context) error {
	all, err := w.slices.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list EndpointSlices: %w", err)
	}
	at := time.Now()
	w.note(func() {
		for _, s := range all.Items {
			if _, ok := w.seen[s.ResourceVersion]; !ok {
				w.seen[s.ResourceVersion] = at
			}
		}
	})
	w.version = all.ResourceVersion
	return nil
}

// sleep returns false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *Watch) note(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.more)
	w.more = make(chan struct{})
}

// Await returns when the watch told of a version.
func (w *Watch) Await(ctx context.Context, version string) (time.Time, error) {
	for {
		w.mu.Lock()
		at, ok := w.seen[version]
		more, err := w.more, w.err
		w.mu.Unlock()
		switch {
		case ok:
			return at, nil
		case err != nil:
			return time.Time{}, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}
