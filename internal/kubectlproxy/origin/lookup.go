package origin

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Bounds of what is remembered about where origins lead.
const (
	// RouteTTL is how long an answer of the API server about a Service is good for. A pod that is gone shows at once.
	RouteTTL = 3 * time.Second
	// MaxRoutes is how many origins are remembered.
	MaxRoutes = 1024
	// resolveTimeout bounds the questions for one origin.
	resolveTimeout = 10 * time.Second
)

type routeKey struct {
	config *rest.Config
	origin Origin
}

// routes remembers where origins lead, for a short time, and asks once for all who want to know at the same time.
type routes struct {
	seed maphash.Seed
	mu   sync.Mutex
	by   map[routeKey]*answer
}

// answer is what was found out about an origin, or will be.
type answer struct {
	done  chan struct{} // then the others are set
	until time.Time
	route *route
	err   error
}

func newRoutes() *routes { return &routes{seed: maphash.MakeSeed(), by: map[routeKey]*answer{}} }

// lookup returns where an origin leads. Who asks first asks for all, and so is not interrupted by its own client.
func (r *routes) lookup(ctx context.Context, key routeKey, get getter) (*route, error) {
	a, first := r.entry(key)
	if first {
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTimeout)
		defer cancel()
		found, err := resolve(asking, get, key.origin)
		if err == nil {
			found.narrow(r.seed)
		}
		r.settle(key, a, found, err)
	}
	select {
	case <-a.done:
		return a.route, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// entry returns what is known, or a place for it that the caller has to settle.
func (r *routes) entry(key routeKey) (a *answer, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.by[key]; a != nil && (a.until.IsZero() || time.Now().Before(a.until)) {
		return a, false
	}
	if len(r.by) >= MaxRoutes {
		r.makeRoom()
	}
	a = &answer{done: make(chan struct{})}
	r.by[key] = a
	return a, true
}

// makeRoom forgets what is out of date, and if that is nothing, something.
func (r *routes) makeRoom() {
	now := time.Now()
	for key, a := range r.by {
		if !a.until.IsZero() && now.After(a.until) {
			delete(r.by, key)
		}
	}
	for key := range r.by {
		if len(r.by) < MaxRoutes {
			return
		}
		delete(r.by, key)
	}
}

// settle keeps an answer; an error is for those who asked already, and the next one asks again.
func (r *routes) settle(key routeKey, a *answer, found *route, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.route, a.err, a.until = found, err, time.Now().Add(RouteTTL)
	if err != nil {
		a.until = time.Now()
	}
	close(a.done)
	if err != nil && r.by[key] == a {
		delete(r.by, key)
	}
}

// forget has the next request ask again: what was known has proved wrong.
func (r *routes) forget(key routeKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.by[key]; a != nil && !a.until.IsZero() {
		delete(r.by, key)
	}
}
