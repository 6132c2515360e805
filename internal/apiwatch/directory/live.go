package directory

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/service"
)

const (
	// askedAtOnce bounds the objects that the API server is asked for at the same time: clients choose the names.
	askedAtOnce = 16
	// askedFor bounds one request.
	askedFor = 5 * time.Second
	// foundFor is how long an object that was found counts, if the watch says nothing of it before. Mostly it does within
	// some hundredths of a second.
	foundFor = 5 * time.Second
	// refusedFor is how long the answer counts that there is no such object, or that it may not be read.
	refusedFor = time.Second
	// maxRemembered bounds the answers of a kind that are kept.
	maxRemembered = 1024
)

// live asks the API server for single objects that the watch does not know. Who asks for the same one while a request is
// under way, or shortly after, gets the same answer.
type live[V any] struct {
	resource schema.GroupResource
	get      func(context.Context, service.Name) (*V, error)
	counts   func(*V) time.Duration // how long an object counts that was found
	slots    chan struct{}          // filled while a request is under way; of all kinds

	mu   sync.Mutex
	asks map[service.Name]*ask[V]
}

// ask is a request, and then its answer.
type ask[V any] struct {
	done  chan struct{} // closed when there is an answer
	value *V
	err   error
	until time.Time // of its use; zero before the answer; guarded by live.mu
}

func newLive[V any](resource string, slots chan struct{}, get func(context.Context, service.Name) (*V, error)) *live[V] {
	return &live[V]{
		resource: schema.GroupResource{Resource: resource}, slots: slots, get: get, asks: map[service.Name]*ask[V]{},
		counts: func(*V) time.Duration { return foundFor },
	}
}

// newAsking returns how the objects of a client are asked for. What is wrong with one is in the log once the watch has it.
func newAsking(c kubernetes.Interface) asking {
	slots := make(chan struct{}, askedAtOnce)
	a := asking{
		services: newLive("services", slots, func(ctx context.Context, n service.Name) (*Service, error) {
			obj, err := c.CoreV1().Services(n.Namespace).Get(ctx, n.Name, metav1.GetOptions{})
			return converted(obj, err, ServiceOf)
		}),
		pods: newLive("pods", slots, func(ctx context.Context, n service.Name) (*Pod, error) {
			obj, err := c.CoreV1().Pods(n.Namespace).Get(ctx, n.Name, metav1.GetOptions{})
			return converted(obj, err, func(p *corev1.Pod) (*Pod, []error) { return PodOf(p) })
		}),
		nodes: newLive("nodes", slots, func(ctx context.Context, n service.Name) (*Node, error) {
			obj, err := c.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
			return converted(obj, err, NodeOf)
		}),
	}
	a.pods.counts = func(p *Pod) time.Duration {
		if p.Terminated {
			return refusedFor // the watch does not tell of those, nor of their end
		}
		return foundFor
	}
	return a
}

func converted[O, V any](obj O, err error, convert func(O) (*V, []error)) (*V, error) {
	if err != nil {
		return nil, err
	}
	v, _ := convert(obj)
	return v, nil
}

// lookup returns the API server's answer.
func (l *live[V]) lookup(ctx context.Context, name service.Name) (*V, error) {
	a, err := l.join(ctx, name)
	if err != nil {
		return nil, err
	}
	select {
	case <-a.done:
		return a.value, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("asking for %s %q: %w", l.resource.Resource, name.Name, ctx.Err())
	}
}

// join returns a request that is under way, an answer that still counts, or a new request.
func (l *live[V]) join(ctx context.Context, name service.Name) (*ask[V], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.asks[name]; a != nil && (a.until.IsZero() || time.Now().Before(a.until)) {
		return a, nil
	}
	select {
	case l.slots <- struct{}{}:
	default:
		return nil, unavailable("too many objects are looked up that are not known yet, %s %q is not", l.resource.Resource, name.Name)
	}
	a := &ask[V]{done: make(chan struct{})}
	l.makeRoom()
	l.asks[name] = a
	go l.answer(context.WithoutCancel(ctx), name, a) // who joins waits for it, also if the first one leaves
	return a, nil
}

// makeRoom forgets any answer if there are too many. Requests are few.
func (l *live[V]) makeRoom() {
	if len(l.asks) < maxRemembered {
		return
	}
	for name, a := range l.asks {
		if !a.until.IsZero() {
			delete(l.asks, name)
			return
		}
	}
}

func (l *live[V]) answer(ctx context.Context, name service.Name, a *ask[V]) {
	ctx, cancel := context.WithTimeout(ctx, askedFor)
	defer cancel()
	v, err := l.get(ctx, name)
	a.value, a.err = v, l.explain(name, err)
	<-l.slots
	l.mu.Lock()
	if l.asks[name] == a { // else the watch said something in between
		if keep := l.keep(v, err); keep > 0 {
			a.until = time.Now().Add(keep)
		} else {
			delete(l.asks, name)
		}
	}
	l.mu.Unlock()
	close(a.done)
}

// keep returns for how long an answer counts.
func (l *live[V]) keep(v *V, err error) time.Duration {
	switch {
	case err == nil:
		return l.counts(v)
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return refusedFor
	}
	return 0
}

// explain passes on what is an answer to the client. The rest is between this process and the API server.
func (l *live[V]) explain(name service.Name, err error) error {
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsTooManyRequests(err) {
		return err
	}
	return unavailable("asking the API server for %s %q: %s", l.resource.Resource, name.Name, bare(err))
}

// bare returns an error's words without the URL that was asked.
func bare(err error) string {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// forget drops what was said of an object, also if it is under way: the watch has said that it is gone.
func (l *live[V]) forget(name service.Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.asks, name)
}

// forgetAll is forget for all objects.
func (l *live[V]) forgetAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.asks)
}
