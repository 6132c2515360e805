package feed

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const (
	// shutdownTimeout bounds the wait for reflectors at the end.
	shutdownTimeout = time.Second
	// minBackoff and maxBackoff bound the pause after a list or watch that failed; it doubles, with a jitter of as much
	// again. Upstream goes up to 30 s, and so does its delay after the API server is back.
	minBackoff = 500 * time.Millisecond
	maxBackoff = 3 * time.Second
)

// Feed is what keeps one kind of objects up to date.
type Feed struct {
	Run    func(context.Context) // until the context ends
	Synced <-chan struct{}       // closed when the first list was handed on, or is not to be waited for
}

// Lister is the client of one kind of objects. It is safe for concurrent use; its methods block until the API server has
// begun to answer.
type Lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// Reflect returns a feed of the objects that the selectors name. Kind is its name in the log, example an object of it.
func Reflect[O metav1.Object, S any, L runtime.Object](
	source *Source, sink *Sink[O, S], example O, client Lister[L], selectors metav1.ListOptions,
) Feed {
	lw := listWatch(source, sink.kind, client, selectors)
	r := cache.NewReflectorWithOptions(lw, example, sink.Store(), options(sink.kind))
	return Feed{r.RunWithContext, sink.synced}
}

// listWatch lists and watches the objects that the selectors name, and notes whether the API server answers.
func listWatch[L runtime.Object](source *Source, kind string, client Lister[L], selectors metav1.ListOptions) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector, o.FieldSelector = selectors.LabelSelector, selectors.FieldSelector
			source.Contact.Begin(kind)
			list, err := client.List(ctx, o)
			source.Contact.End(kind, err)
			if err != nil {
				return nil, err // a nil list in an interface would not be nil
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector, o.FieldSelector = selectors.LabelSelector, selectors.FieldSelector
			source.Contact.Begin(kind)
			events, err := client.Watch(ctx, o)
			source.Contact.End(kind, err)
			return events, err
		},
	}, source.Client)
}

func options(name string) cache.ReflectorOptions {
	steps := int(maxBackoff / minBackoff) // more than it takes to reach the longest pause
	return cache.ReflectorOptions{
		Name:    name,
		Backoff: &wait.Backoff{Duration: minBackoff, Cap: maxBackoff, Steps: steps, Factor: 2, Jitter: 1},
	}
}

// Start runs feeds until the context ends. The function returned waits for them, but not for long: one that waits to try a
// dead API server again sleeps on for some seconds, and does nothing any more.
func Start(ctx context.Context, feeds []Feed) (wait func()) {
	var running sync.WaitGroup
	for _, f := range feeds {
		running.Go(func() { f.Run(ctx) })
	}
	return func() {
		ended := make(chan struct{})
		go func() {
			running.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(shutdownTimeout):
		}
	}
}

// Wait returns true once all feeds are synced, false if that takes longer than the patience or the context.
func Wait(ctx context.Context, feeds []Feed, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, f := range feeds {
		select {
		case <-ctx.Done():
			return false
		case <-f.Synced:
		}
	}
	return true
}
