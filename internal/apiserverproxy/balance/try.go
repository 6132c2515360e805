package balance

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/backend"
	"varco.dev/internal/httpproxy/resend"
)

// verdict is whether a request may be sent again.
type verdict uint8

const (
	no         verdict = iota
	connect            // no connection could be made
	unsent             // the connection broke before anything of the request was sent
	stale              // the same, on one that had been used before: the endpoint is not to blame, and may be tried again
	idempotent         // it broke later, but the request may be sent twice
	verdicts
)

// String returns the word in metrics.
func (v verdict) String() string {
	return [...]string{"no", "connect", "unsent", "stale", "idempotent"}[v]
}

// try is a request on its way to one endpoint.
type try struct {
	req   http.Request
	url   url.URL
	at    place
	body  *resend.Body
	ctx   resend.Traced
	trace httptrace.ClientTrace
	outer *httptrace.ClientTrace // whoever else wants to know; its hooks may be nil
	from  context.Context        // the request's own

	answer        heldBody // room for the answer's
	mayTwice, h2c bool
	hurry         bool                    // another endpoint is left: connecting must not take long
	once          bool                    // net/http must not send it again by itself either
	cancel        context.CancelCauseFunc // nil: nothing but the request's own context ends the try

	mu        sync.Mutex  // guards the fields below; hooks are called by other goroutines
	timer     *time.Timer // of connecting
	late      bool        // it has fired
	connected bool
	got       time.Time // the connection
	reused    bool      // the connection has served before
	conn      counted
	shared    bool // it is of HTTP/2; found out where once asks for it
	sent      bool // something of the request was written, as far as is known
	stopped   bool // it was, and would have been once more
	heard     bool // something of an answer has come
}

// newTry makes the request for an endpoint.
func (x *Exchange) newTry(r *http.Request, at place, b *resend.Body, mayTwice, more bool) *try {
	t := &x.one
	if t.from != nil { // net/http may still look at the first
		t = new(try)
	}
	t.at, t.body, t.url, t.from, t.mayTwice, t.h2c = at, b, *r.URL, r.Context(), mayTwice, x.d.Scheme == locate.H2C
	t.url.Host, t.url.Scheme = at.host, x.d.Scheme
	if t.h2c {
		t.url.Scheme = locate.HTTP // with a transport of its own
	}
	ctx := t.from
	t.once = x.b.config.OnlyUnsent
	t.hurry = more && x.pool != nil && x.pool.Others(append(x.want.Avoid, at.addr))
	if t.hurry || t.once {
		ctx, t.cancel = context.WithCancelCause(ctx)
	}
	t.req = *r.WithContext(t.traced(ctx))
	t.req.URL = &t.url
	if b != nil {
		t.req.Body, t.req.GetBody = b.Give(), b.Again
	}
	return t
}

// roundTrip sends the request. The answer's body holds the lease.
func (t *try) roundTrip(rt http.RoundTripper) (*http.Response, error) {
	resp, err := rt.RoundTrip(&t.req)
	t.mu.Lock()
	t.stopTimer()
	switch {
	case err == nil:
	case t.stopped:
		err = errSent
	case t.late && !t.connected:
		err = &slowConnect{t.at.host}
	}
	got := t.got
	t.mu.Unlock()
	if err != nil {
		t.end()
		return nil, err
	}
	t.at.answered(t.latency(got))
	t.hold(resp)
	return resp, nil
}

// latency is how long the header took. How long a body took to be sent says more of the client.
func (t *try) latency(got time.Time) time.Duration {
	if t.body != nil || got.IsZero() {
		return 0
	}
	return time.Since(got)
}

// end lets go of the context.
func (t *try) end() {
	if t.cancel != nil {
		t.cancel(nil)
	}
}

// judge says whether a failed request may be sent again, and blames the endpoint if it is its fault.
func (t *try) judge(err error) verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	v := no
	switch {
	case t.from.Err() != nil, t.body.Broken(), t.stopped:
		return no // the client has gone, or does not send what it promised; or there was a try too many
	case !t.connected, t.late && !t.sent:
		t.at.failed(backend.Unreachable)
		v = connect
	case t.heard, isTimeout(err):
		return no // there is an answer, if a bad one; or it may still be at work
	case isRefused(err):
		v = unsent
	case !t.sent && t.reused:
		v = stale
	case !t.sent:
		t.at.failed(backend.Broken)
		v = unsent
	default:
		if !t.reused {
			t.at.failed(backend.Broken)
		}
		v = idempotent
	}
	if !t.body.Fresh() || t.sent && !t.mayTwice && !isRefused(err) {
		return no
	}
	return v
}

// errSent says that a request must not be sent again.
var errSent = errors.New("the connection broke after the request was sent, and it is not sent twice")

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

// isRefused tells whether a server of HTTP/2 has said that it has done nothing (RFC 9113, 8.7).
func isRefused(err error) bool {
	var stream http2.StreamError
	return errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream
}

// slowConnect says that no connection was there in time.
type slowConnect struct{ host string }

// Error implements error.
func (e *slowConnect) Error() string {
	return "dial tcp " + e.host + ": no connection after " + connectTimeout.String()
}

// Timeout implements net.Error.
func (e *slowConnect) Timeout() bool { return true }

// Temporary implements net.Error.
func (e *slowConnect) Temporary() bool { return true }

// Is makes it a timeout for whoever asks the way that package context has it.
func (e *slowConnect) Is(target error) bool { return target == context.DeadlineExceeded }
