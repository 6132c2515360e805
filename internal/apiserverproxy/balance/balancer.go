package balance

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/backend"
)

const (
	// DefaultMaxTries is how many endpoints a request is sent to at most.
	DefaultMaxTries = 3

	// connectTimeout is how long a connection may take, TLS included, while another endpoint is left. It bears the loss of one
	// SYN, which is sent again after a second (RFC 6298, 2.1); Linkerd gives up after one second.
	connectTimeout = 2 * time.Second
	// retryTime is how long after the begin of the first try another one may begin.
	retryTime = 10 * time.Second
	// maxPools is how many destinations are remembered. Those beyond are served without memory.
	maxPools = 4096
	// poolIdle is how long a pool is kept that nobody asks for. What it remembers is worth nothing by then.
	poolIdle = 5 * time.Minute
	// sweepEvery is how often idle pools are looked for, and at most so if there are too many.
	sweepEvery = 10 * time.Second
)

// Transports is where requests go out. Its methods are called for each request, and safe for concurrent use; the RoundTrippers
// belong to it. They follow no redirects.
type Transports interface {
	// RoundTripper returns what takes requests that want no upgrade.
	RoundTripper(outbound.Profile) http.RoundTripper
	// Upgrade returns what takes requests that want one.
	Upgrade(outbound.Profile) http.RoundTripper
}

// Config is what New wants to know.
type Config struct {
	Transports Transports   // required
	Log        *slog.Logger // required
	// Zone is where the proxy runs (topology.kubernetes.io/zone of its node); "": topology hints are ignored.
	Zone string
	// MaxTries is how many endpoints a request is sent to at most. Default: DefaultMaxTries.
	MaxTries int
	// OnlyUnsent has requests sent again only if nothing of them was sent. Otherwise, those with idempotent methods are too.
	OnlyUnsent bool
}

// Balancer has the pools of all destinations. It is safe for concurrent use.
type Balancer struct {
	config  Config
	metrics metrics

	mu    sync.RWMutex // guards the fields below
	pools map[poolKey]*pool
	swept time.Time
}

// poolKey tells pools apart. Who asks with the wrong scheme must not have endpoints taken for failed that others reach.
type poolKey struct{ key, scheme string }

// pool is what is known of a destination's endpoints.
type pool struct {
	*backend.Pool
	used atomic.Int64 // seconds of Unix time
	to   atomic.Pointer[locate.Destination]
	also atomic.Pointer[locate.Destination] // another one with the same endpoints, such as by another spelling of the port
	tags atomic.Pointer[tags]               // nil: no cookies

	mu sync.Mutex // held while to and also change
}

// New returns a balancer without pools.
func New(c Config) *Balancer {
	if c.MaxTries <= 0 {
		c.MaxTries = DefaultMaxTries
	}
	return &Balancer{config: c, metrics: newMetrics(), pools: map[poolKey]*pool{}}
}

// Run drops pools that nobody uses, until the context ends.
func (b *Balancer) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.mu.Lock()
			b.sweep(time.Now())
			b.mu.Unlock()
		}
	}
}

// sweep drops pools that nobody has used for long.
func (b *Balancer) sweep(now time.Time) {
	b.swept = now
	for key, p := range b.pools {
		if now.Unix()-p.used.Load() > int64(poolIdle/time.Second) && p.Stats().InFlight == 0 {
			delete(b.pools, key)
		}
	}
}

// poolOf returns the pool of a destination, up to date.
func (b *Balancer) poolOf(d *locate.Destination) *pool {
	key := poolKey{d.Key, d.Scheme}
	b.mu.RLock()
	p := b.pools[key]
	b.mu.RUnlock()
	if p == nil {
		p = b.addPool(key)
	}
	if now := time.Now().Unix(); p.used.Load() != now {
		p.used.Store(now)
	}
	if p.to.Load() != d && p.also.Load() != d {
		b.update(p, d)
	}
	return p
}

func (b *Balancer) addPool(key poolKey) *pool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.pools[key]; p != nil {
		return p
	}
	p := &pool{Pool: backend.NewPool(backend.Config{
		Ejected: func(addr netip.AddrPort, d time.Duration) {
			b.metrics.ejections.Inc()
			b.config.Log.Debug("an endpoint is left out", "destination", key.key, "endpoint", addr, "for", d)
		},
		Returned: func(addr netip.AddrPort) {
			b.config.Log.Debug("an endpoint is back", "destination", key.key, "endpoint", addr)
		},
	})}
	p.used.Store(time.Now().Unix())
	if now := time.Now(); len(b.pools) >= maxPools && now.Sub(b.swept) >= sweepEvery {
		b.sweep(now)
	}
	if len(b.pools) < maxPools {
		b.pools[key] = p
	}
	return p
}

// update has a pool hold the endpoints of a destination.
func (b *Balancer) update(p *pool, d *locate.Destination) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch old := p.to.Load(); {
	case old == d: // somebody was faster
	case old != nil && sameEndpoints(old, d):
		p.also.Store(d)
	default:
		p.Set(targetsOf(d.Endpoints, b.config.Zone))
		p.tags.Store(tagsOf(d))
		p.also.Store(nil)
		p.to.Store(d)
	}
}

// sameEndpoints tells whether a pool of one is a pool of the other.
func sameEndpoints(a, b *locate.Destination) bool {
	return a.Cookie == b.Cookie && slices.EqualFunc(a.Endpoints, b.Endpoints, func(x, y locate.Endpoint) bool {
		return x.Addr == y.Addr && x.Draining == y.Draining && slices.Equal(x.ForZones, y.ForZones)
	})
}

// targetsOf returns endpoints as targets. Topology hints count as kube-proxy takes them: only if every endpoint has some and
// one of them is for our zone.
func targetsOf(endpoints []locate.Endpoint, zone string) []backend.Target {
	out := make([]backend.Target, len(endpoints))
	hinted := zone != ""
	for i, e := range endpoints {
		hinted = hinted && len(e.ForZones) > 0
		out[i] = backend.Target{Addr: e.Addr, Draining: e.Draining}
	}
	for i, e := range endpoints {
		out[i].Preferred = hinted && slices.Contains(e.ForZones, zone)
	}
	return out
}
