package fakeapi

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// watches are those that have their events together.
type watches struct {
	mu  sync.Mutex
	all map[chan time.Time]bool
}

// run tells all watches of an event again and again until ctx ends. One that has not yet sent the last event misses it.
func (ws *watches) run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ws.tell(time.Now())
	}
}

func (ws *watches) tell(at time.Time) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for c := range ws.all {
		select {
		case c <- at:
		default:
		}
	}
}

// join returns a channel of the times of events, and what ends it.
func (ws *watches) join() (events <-chan time.Time, leave func()) {
	c := make(chan time.Time, 1)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.all == nil {
		ws.all = map[chan time.Time]bool{}
	}
	ws.all[c] = true
	return c, func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		delete(ws.all, c)
	}
}

// watch sends events until the client goes away.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, together bool) {
	w.Header().Set("Content-Type", "application/json")
	out := http.NewResponseController(w)
	if out.Flush() != nil {
		return
	}
	send := func(at time.Time) bool {
		_, err := w.Write(event(at))
		return err == nil && out.Flush() == nil
	}
	if together {
		events, leave := s.watches.join()
		defer leave()
		follow(r.Context(), events, send)
		return
	}
	// So that watches that were opened at the same time do not send at the same times.
	select {
	case <-time.After(rand.N(s.interval())):
	case <-r.Context().Done():
		return
	}
	tick := time.NewTicker(s.interval())
	defer tick.Stop()
	follow(r.Context(), tick.C, func(time.Time) bool { return send(time.Now()) })
}

func follow(ctx context.Context, events <-chan time.Time, send func(time.Time) bool) {
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-events:
			if !send(at) {
				return
			}
		}
	}
}
