package locate

import (
	"context"
	"errors"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// flights lets requests that need the same answer at the same time share one computation. During a rollout the version of
// a Service changes many times a second, and each time all requests under way would compute the same: 0.7 ms each for 5,000
// endpoints.
type flights struct {
	mu sync.Mutex
	of map[flightKey]*flight
}

type flightKey struct {
	key
	version uint64
}

// flight is one computation. Its result may be read once done is closed.
type flight struct {
	done chan struct{}
	dest *Destination
	err  error
}

// do returns the result of compute, which the first of all callers with the same key runs. compute must end by itself: its
// result is for others too, so that it must not end with the first caller's request. The others wait no longer than their
// own.
func (f *flights) do(ctx context.Context, k flightKey, compute func() (*Destination, error)) (*Destination, error) {
	f.mu.Lock()
	if other := f.of[k]; other != nil {
		f.mu.Unlock()
		return other.wait(ctx)
	}
	own := &flight{done: make(chan struct{}), err: apierrors.NewInternalError(errors.New("finding the destination failed"))}
	f.of[k] = own
	f.mu.Unlock()
	defer f.land(k, own) // also if compute panics: the others must not wait for ever
	own.dest, own.err = compute()
	return own.dest, own.err
}

func (f *flights) land(k flightKey, own *flight) {
	f.mu.Lock()
	delete(f.of, k)
	f.mu.Unlock()
	close(own.done)
}

func (f *flight) wait(ctx context.Context) (*Destination, error) {
	select {
	case <-f.done:
		return f.dest, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
