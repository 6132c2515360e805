package https

import (
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/httpproxy/resend"
	"varco.dev/internal/httpproxy/vouch"
)

const (
	// maxTries is how many backends one request is sent to at most. Clusters have three to five API servers; who has met as many
	// that do not work will not be helped by more.
	maxTries = 5
	// retryTime is after which time no further backend is tried: its client will soon give up.
	retryTime = 30 * time.Second
	// heldAnswer is how much of an answer of 429 is read so that its connection can be used again.
	heldAnswer = 4 << 10
)

// spread sends each request to a backend of its own. It implements vouch.Spread.
type spread struct {
	balancer Balancer
	flights  *flights
	busy     *busy

	retries [ways]atomic.Int64
}

// way is why a request was sent again.
type way uint8

const (
	no         way = iota
	unsent         // no connection could be made, or nothing of the request was sent
	idempotent     // the backend broke before it answered, but asking twice does no harm
	turnedAway     // it answered 429
	ways
)

// Over implements vouch.Spread.
func (s *spread) Over(lane http.RoundTripper, r *http.Request, k vouch.Kind) http.RoundTripper {
	return &exchange{spread: s, lane: lane, client: r, kind: k}
}

// exchange is one request over all its tries.
type exchange struct {
	*spread
	lane   http.RoundTripper
	client *http.Request
	kind   vouch.Kind

	tried []netip.AddrPort
	room  [maxTries]netip.AddrPort // of tried
	first time.Time
	held  *http.Response // the answer of a backend that turned the request away
}

// RoundTrip implements http.RoundTripper.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	body := resend.NewBody(r)
	x.tried, x.first = x.room[:0], time.Now()
	var before error
	for {
		to, err := x.pick()
		if err != nil {
			return x.give(before, noneLeft(err))
		}
		f := x.fly(r, to, body)
		resp, err := f.roundTrip(x.lane)
		if err == nil {
			if x.turnsAway(r, resp, to) && x.held == nil {
				x.held = resp
				x.again(turnedAway, to)
				continue
			}
			x.release()
			return resp, nil
		}
		w := f.judge(err)
		f.end()
		before = f.describe(err)
		if w == no || len(x.tried)+1 >= maxTries || time.Since(x.first) > retryTime {
			return x.give(before, nil)
		}
		x.again(w, to)
	}
}

// again notes that another backend is to be tried.
func (x *exchange) again(w way, not Attempt) {
	x.tried = append(x.tried, not.Backend)
	x.retries[w].Add(1)
}

// give returns what there is when no backend is left to be tried.
func (x *exchange) give(before, now error) (*http.Response, error) {
	if x.held != nil {
		return x.held, nil
	}
	if before != nil {
		return nil, before
	}
	return nil, now
}

// release lets go of an answer that another one has come in place of.
func (x *exchange) release() {
	if x.held != nil {
		_, _ = io.CopyN(io.Discard, x.held.Body, heldAnswer) // whatever comes of it
		x.held.Body.Close()
		x.held = nil
	}
}

// pick chooses a backend. Those that have turned requests away are left out for a while, if there are others.
func (x *exchange) pick() (Attempt, error) {
	if avoid := x.busy.with(x.tried, x.client, x.kind); len(avoid) > len(x.tried) && x.balancer.Others(avoid) {
		if to, err := x.balancer.Pick(x.client, avoid); err == nil {
			return to, nil
		}
	}
	return x.balancer.Pick(x.client, x.tried)
}

// turnsAway notes an answer of code 429, and says whether another backend is to be asked. It is asked once, and only for what may be
// asked twice: clients know what Retry-After means, and a cluster that is too busy must not be asked more often for it.
func (x *exchange) turnsAway(r *http.Request, resp *http.Response, to Attempt) bool {
	if resp.StatusCode != http.StatusTooManyRequests {
		return false
	}
	if x.busy.note(to.Backend, x.client, resp) {
		to.Report(Busy)
	}
	return isSafe(r) && len(x.tried)+1 < maxTries && x.balancer.Others(append(x.tried, to.Backend))
}

// isSafe tells whether a request may be sent again although it may have been carried out: one that reads, without a body. PUT and
// DELETE are idempotent in HTTP (RFC 9110, 9.2.2), but their second answer is another one: 409 and 404.
func isSafe(r *http.Request) bool {
	bare := r.Body == nil || r.Body == http.NoBody
	return bare && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions)
}

// noneLeft is what clients are told when there is no backend: to come again, which client-go does by itself.
func noneLeft(err error) error {
	return httpproxy.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "no API server can be chosen: "+err.Error())
}
