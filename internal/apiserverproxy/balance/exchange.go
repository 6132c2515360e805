package balance

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/backend"
	"varco.dev/internal/httpproxy/resend"
)

// Exchange is one request to a destination, over all its tries. It serves one RoundTrip.
type Exchange struct {
	b       *Balancer
	d       *locate.Destination
	pool    *pool // nil: there is nothing to choose from
	profile outbound.Profile
	secure  bool // the client speaks TLS

	want  backend.Want
	tried [DefaultMaxTries]netip.AddrPort // room for want.Avoid
	first time.Time                       // when the first try began
	by    netip.AddrPort                  // who has answered
	one   try                             // the first, which mostly is the only one
}

// Exchange begins an exchange for a request as the client sent it. Affinity by client address needs no memory, and so has no time
// after which it ends: an address is a key that all replicas pick the same endpoint by, as long as that is up. The zero value
// says that it is not known. Affinity by cookie goes before.
func (b *Balancer) Exchange(r *http.Request, client netip.Addr, d *locate.Destination) *Exchange {
	x := &Exchange{b: b, d: d, secure: r.TLS != nil, profile: outbound.Profile{
		Scheme: d.Scheme, Kubelet: d.Kubelet, CA: d.TLS.CA, ServerName: d.TLS.ServerName,
	}}
	x.want.Avoid = x.tried[:0]
	if len(d.Endpoints) < 2 && !d.Cookie {
		return x
	}
	x.pool = b.poolOf(d)
	if d.Affinity > 0 && client.IsValid() {
		x.want.Key, x.want.Keyed = backend.HashAddr(client), true
	}
	if tags := x.pool.tags.Load(); d.Cookie && tags != nil {
		x.want.Stay = tags.presented(r)
	}
	return x
}

// RoundTripper takes the request if it wants no upgrade. The request that it is given says in its URL what is asked for;
// scheme and host there are replaced. The Request of the answer has them in its URL: that is who has answered. The lease of
// the endpoint ends with the answer's body, which must be closed. The error is that of the last try.
func (x *Exchange) RoundTripper() http.RoundTripper { return (*ordinary)(x) }

// Upgrade takes it if it does. Answers of code 101 have an io.ReadWriteCloser as their body. Such a request is sent again only if
// nothing of it was sent.
func (x *Exchange) Upgrade() http.RoundTripper { return (*upgrading)(x) }

type ordinary Exchange

// RoundTrip implements http.RoundTripper.
func (o *ordinary) RoundTrip(r *http.Request) (*http.Response, error) {
	x := (*Exchange)(o)
	return x.send(x.b.config.Transports.RoundTripper(x.profile), r, !x.b.config.OnlyUnsent && isIdempotent(r.Method))
}

type upgrading Exchange

// RoundTrip implements http.RoundTripper.
func (u *upgrading) RoundTrip(r *http.Request) (*http.Response, error) {
	x := (*Exchange)(u)
	return x.send(x.b.config.Transports.Upgrade(x.profile), r, false)
}

// isIdempotent: RFC 9110, 9.2.2. TRACE is left out, since nobody asks for it.
func isIdempotent(method string) bool {
	switch method {
	case http.MethodGet, "", http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// send tries one endpoint after the other.
func (x *Exchange) send(rt http.RoundTripper, r *http.Request, idempotent bool) (*http.Response, error) {
	body := resend.NewBody(r)
	defer body.Last()
	x.first = time.Now()
	var before error
	for n := 1; ; n++ {
		at, err := x.pick()
		if err != nil {
			return nil, firstErr(before, err)
		}
		t := x.newTry(r, at, body, idempotent, n < x.b.config.MaxTries)
		resp, err := t.roundTrip(rt)
		x.b.metrics.tries.Inc()
		if err == nil {
			x.by = at.addr
			return resp, nil
		}
		again := t.judge(err)
		at.done()
		before = describe(at.host, err, t.connected)
		if again == no || n >= x.b.config.MaxTries || time.Since(x.first) > retryTime {
			return nil, before
		}
		if again != stale {
			x.want.Avoid = append(x.want.Avoid, at.addr)
		}
		if !x.mayGoOn(again) {
			return nil, before
		}
		x.b.metrics.retries[again].Inc()
		x.b.config.Log.Debug("a request is sent again", "destination", x.d.Key, "endpoint", at.host, "why", again.String(), "error", err)
	}
}

// mayGoOn tells whether there is anywhere to go for another try.
func (x *Exchange) mayGoOn(again verdict) bool {
	return x.pool != nil || again == stale
}

// firstErr returns the error of the try before, if there was one: it says more than that no endpoint is left.
func firstErr(before, now error) error {
	if before != nil {
		return before
	}
	return now
}

// describe says which endpoint an error is about, unless it does so itself.
func describe(host string, err error, connected bool) error {
	if op := (*net.OpError)(nil); !connected && errors.As(err, &op) && op.Addr != nil {
		return err // of the dialer
	}
	return fmt.Errorf("endpoint %s: %w", host, err)
}

// place is where a try goes.
type place struct {
	addr   netip.AddrPort // zero: host is a name
	host   string
	lease  backend.Lease
	leased bool
}

func (x *Exchange) pick() (place, error) {
	switch {
	case x.pool != nil:
		l, err := x.pool.Pick(x.want)
		if err != nil {
			return place{}, fmt.Errorf("picking an endpoint: %w", err)
		}
		return place{l.Addr(), l.Host(), l, true}, nil
	case len(x.d.Endpoints) == 1:
		a := x.d.Endpoints[0].Addr
		return place{addr: a, host: a.String()}, nil
	case x.d.Host != "":
		return place{host: x.d.Host}, nil
	}
	return place{}, fmt.Errorf("picking an endpoint: %w", backend.ErrNone)
}

func (p *place) answered(latency time.Duration) {
	if p.leased {
		p.lease.Answered(latency)
	}
}

func (p *place) failed(how backend.Failure) {
	if p.leased {
		p.lease.Failed(how)
	}
}

func (p *place) done() {
	if p.leased {
		p.lease.Done()
	}
}
