package outbound

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// peer is the targets that are spoken to by one profile.
type peer struct {
	o       *Outbound
	profile Profile
	used    atomic.Int64 // when it was asked for last, as a count of Outbound's; the least is dropped first

	mu  sync.Mutex // held while transports are built
	now atomic.Pointer[transports]
}

// normal returns the profile that speaks in the same way as p and has nothing in it that does not count.
func (p Profile) normal() Profile {
	switch {
	case p.Kubelet:
		p.Scheme = "https"
	case p.Scheme != "https":
		p = Profile{Scheme: p.Scheme}
	}
	return p
}

// peer finds or makes the peer of a profile.
func (o *Outbound) peer(p Profile) *peer {
	p = p.normal()
	o.mu.RLock()
	found := o.profiles[p]
	o.mu.RUnlock()
	if found == nil {
		found = o.newPeer(p)
	}
	found.used.Store(o.asked.Add(1))
	return found
}

// newPeer makes room for a peer if there is none. The one that goes closes its connections when they are not used any more;
// whoever still holds it can go on.
func (o *Outbound) newPeer(p Profile) *peer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if found := o.profiles[p]; found != nil {
		return found
	}
	if len(o.profiles) >= maxProfiles {
		oldest := o.oldest()
		delete(o.profiles, oldest.profile)
		oldest.closeIdle()
	}
	made := &peer{o: o, profile: p}
	o.profiles[p] = made
	return made
}

func (o *Outbound) oldest() (oldest *peer) {
	for _, each := range o.profiles {
		if oldest == nil || each.used.Load() < oldest.used.Load() {
			oldest = each
		}
	}
	return oldest
}

func (p *peer) keyring() *keyring {
	if p.profile.Kubelet {
		return p.o.kubelets
	}
	return p.o.backends
}

// transports returns those for the credentials of today.
func (p *peer) transports() (*transports, error) {
	if t := p.now.Load(); p.isNew(t) {
		return t, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.now.Load()
	if p.isNew(old) {
		return old, nil
	}
	t, err := p.o.build(p.profile, p.keyring().now.Load())
	if err != nil {
		return nil, err
	}
	p.now.Store(t)
	if old != nil {
		old.closeIdle()
	}
	return t, nil
}

// isNew says whether transports can be used still. Without TLS there are no credentials.
func (p *peer) isNew(t *transports) bool {
	return t != nil && (p.profile.Scheme != "https" || t.credentials == p.keyring().now.Load())
}

// renew takes over new credentials without waiting for a request.
func (p *peer) renew() {
	if p.now.Load() != nil {
		_, _ = p.transports() // the next request has the error
	}
}

func (p *peer) closeIdle() {
	if t := p.now.Load(); t != nil {
		t.closeIdle()
	}
}

// prepare returns the transports for a request, and the request as it is sent. It closes the body if there are none.
func (p *peer) prepare(r *http.Request) (*transports, *http.Request, error) {
	t, err := p.transports()
	if err == nil && p.profile.Kubelet && p.o.isOwnPort(r.URL.Port()) {
		err = p.o.guard.refuse(r.URL.Host, NoKubelet)
	}
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, nil, err
	}
	return t, p.outgoing(r, t.credentials), nil
}

// outgoing returns a request with the profile's scheme and credentials. The one given stays as it is.
func (p *peer) outgoing(r *http.Request, c *credentials) *http.Request {
	scheme := "http"
	if p.profile.Scheme == "https" {
		scheme = "https"
	}
	token := ""
	if p.profile.Kubelet && c.token != "" && r.Header.Get("Authorization") == "" {
		token = c.token
	}
	if r.URL.Scheme == scheme && token == "" {
		return r
	}
	out := *r
	if r.URL.Scheme != scheme {
		u := *r.URL
		u.Scheme = scheme
		out.URL = &u
	}
	if token != "" {
		out.Header = r.Header.Clone()
		out.Header.Set("Authorization", "Bearer "+token)
	}
	return &out
}

// ordinary is a peer for requests that want no upgrade.
type ordinary peer

// RoundTrip implements http.RoundTripper.
func (l *ordinary) RoundTrip(r *http.Request) (*http.Response, error) {
	t, r, err := (*peer)(l).prepare(r)
	switch {
	case err != nil:
		return nil, err
	case t.multiplexed == nil:
		return t.ordinary.RoundTrip(r)
	case isGRPC(r.Header):
		return t.multiplexed.RoundTrip(r)
	}
	return t.roundTrip(r)
}

// isGRPC says whether a request cannot do without HTTP/2: its answer ends with trailers that HTTP/1.1 has no place for.
func isGRPC(h http.Header) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(h.Get("Content-Type")), "application/grpc")
	return ok && (rest == "" || strings.ContainsRune("+; ", rune(rest[0])))
}

// upgrade is a peer for requests that want an upgrade.
type upgrade peer

// RoundTrip implements http.RoundTripper.
func (l *upgrade) RoundTrip(r *http.Request) (*http.Response, error) {
	t, r, err := (*peer)(l).prepare(r)
	if err != nil {
		return nil, err
	}
	return t.upgrade.RoundTrip(r)
}
