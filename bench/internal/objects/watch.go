package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// Watch notes when the API server tells of each change of an EndpointSlice: no proxy can know of it much sooner.
type Watch struct {
	mu   sync.Mutex
	seen map[string]time.Time // version -> when; bounded by the changes of one run
	more chan struct{}        // closed when seen has grown
	err  error
}

// StartWatch watches from now until ctx ends.
func StartWatch(ctx context.Context, client kubernetes.Interface) (*Watch, error) {
	now, err := client.DiscoveryV1().EndpointSlices(Namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("find the version to watch from: %w", err)
	}
	events, err := client.DiscoveryV1().EndpointSlices(Namespace).Watch(ctx,
		metav1.ListOptions{ResourceVersion: now.ResourceVersion})
	if err != nil {
		return nil, fmt.Errorf("watch EndpointSlices: %w", err)
	}
	w := &Watch{seen: map[string]time.Time{}, more: make(chan struct{})}
	go w.run(ctx, events)
	return w, nil
}

func (w *Watch) run(ctx context.Context, events watch.Interface) {
	defer events.Stop()
	stop := context.AfterFunc(ctx, events.Stop)
	defer stop()
	for e := range events.ResultChan() {
		at := time.Now()
		meta, ok := e.Object.(metav1.Object)
		if !ok {
			break
		}
		w.note(func() { w.seen[meta.GetResourceVersion()] = at })
	}
	w.note(func() { w.err = errors.New("the watch of EndpointSlices has ended") })
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
