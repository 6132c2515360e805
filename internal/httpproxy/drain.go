package httpproxy

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// cutTimeout is how long the client of a request that is cut has to read what it is told. One that reads nothing would
// hold its answer, and Drain, for as long as it likes.
const cutTimeout = time.Second

// longRunning is the key of a request's context that marks it.
type longRunning struct{}

// LongRunning returns a request that is known to be answered for as long as it takes, such as a watch. Drain ends its answer
// at once and in order, as the API server does when it shuts down, so that its client comes back elsewhere.
func LongRunning(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), longRunning{}, true))
}

func isLongRunning(r *http.Request) bool { return r.Context().Value(longRunning{}) != nil }

// durationMarker is a ResponseWriter that wants to know that an answer says nothing about how fast answers are, such as that
// of an access log. It does not block, and may be called once before the answer begins.
type durationMarker interface{ MarkLongRunning() }

// markLongRunning tells the first ResponseWriter that wants to know.
func markLongRunning(w http.ResponseWriter) {
	for {
		if m, ok := w.(durationMarker); ok {
			m.MarkLongRunning()
			return
		}
		below, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = below.Unwrap()
	}
}

// Drain lets nothing new in (503) and ends what is there: answers of LongRunning requests now and in order, all others,
// upgraded connections included, by themselves. When the context ends it cuts those that are left, waits for them to be
// gone, and returns an error that counts them; nil if there were none. It may be repeated. A client of HTTP/2 that reads
// nothing at all keeps its answers until the server closes the connection.
func (p *Proxy) Drain(ctx context.Context) error {
	idle := p.drainLong()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	requests, upgrades := p.cut()
	<-idle
	if requests == 0 {
		return nil
	}
	return fmt.Errorf("drain: %d requests had not ended and were cut, %d of them upgraded connections", requests, upgrades)
}

// drainLong begins to drain, and returns what is closed when nothing is open any more.
func (p *Proxy) drainLong() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	if len(p.open) == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	for x := range p.open {
		if x.long && !x.upgrading {
			x.drain()
		}
	}
	return p.idle
}

// cut ends all that is open, and returns how many were.
func (p *Proxy) cut() (requests, upgrades int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x := range p.open {
		x.cancel(errDraining)
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(cutTimeout))
		x.interrupt()
	}
	return len(p.open), p.upgrades
}
