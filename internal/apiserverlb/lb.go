package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiserverlb/https"
	"varco.dev/internal/backend"
	"varco.dev/internal/backend/discovery"
	"varco.dev/internal/backend/health"
	"varco.dev/internal/httpproxy/vouch"
	"varco.dev/internal/observe"
	"varco.dev/internal/relay/loop"
)

const (
	// firstBackends is how long backends are waited for at the start.
	firstBackends = 5 * time.Second
	// firstTrust is how long mode https is waited for at the start, which has to ask an API server whom it may believe. A process
	// that is taken over from waits longer for its successor than both together.
	firstTrust = 10 * time.Second
	trustPoll  = 20 * time.Millisecond
)

// Config is what New wants to know.
type Config struct {
	Settings config.Config // required: validated before
	Sockets  *Sockets      // optional: listeners that are open already
	Version  string        // of the binary
	// Mount makes what serves some requests in front of the API servers, with the same trust in clients. The configuration is
	// https.kubeconfig's, with connections that are balanced. It is called if there are listeners of mode https. Optional.
	Mount  func(*vouch.Trust, *rest.Config) (Mounted, error)
	Access *observe.AccessMetrics // of mode https; optional
	Log    *slog.Logger           // required
}

// LB is a load balancer in front of API servers.
type LB struct {
	config    Config
	log       *slog.Logger
	relay     *loop.Relay
	https     *https.Server // nil: no listener is of that mode
	mounted   Mounted       // nil: none
	listeners *listeners
	balancer  *balancer
	closed    closed
	readiness readiness
	started   time.Time

	settings  atomic.Pointer[config.Config]
	checker   atomic.Pointer[health.Checker]
	shown     atomic.Pointer[health.Credentials] // what the checker shows to backends, and knows them by
	discovery atomic.Pointer[discovery.Discovery]
	backends  atomic.Pointer[[]Backend] // as steer has them, sorted by address
	draining  atomic.Bool
	steered   atomic.Int64  // when steer looked last, in nanoseconds since 1970
	limit     atomic.Int64  // of connections
	changed   chan struct{} // capacity 1: steer is to look
	found     chan struct{} // closed by steer when there are backends
	serving   chan struct{} // closed when all listeners are open
	succeeded chan struct{} // closed when another process takes new connections
	stopping  sync.Once
	stopped   chan struct{} // closed when no new connections are taken any more
	hurry     context.Context
	cut       func()     // ends hurry
	applying  sync.Mutex // held while settings are taken over
	checking  *renewed
	finding   *renewed

	// The rest belongs to steer.
	checked   []netip.AddrPort
	checkedBy *health.Checker
	targets   []backend.Target
}

// New returns a balancer that does nothing before Run.
func New(c Config) (*LB, error) {
	lb := &LB{config: c, log: c.Log, started: time.Now(),
		changed: make(chan struct{}, 1), found: make(chan struct{}), serving: make(chan struct{}), succeeded: make(chan struct{}), stopped: make(chan struct{})}
	lb.hurry, lb.cut = context.WithCancel(context.Background())
	lb.settings.Store(&c.Settings)
	lb.shown.Store(lb.credentials(c.Settings.Health))
	lb.backends.Store(&[]Backend{})
	lb.balancer = newBalancer(lb.report)
	lb.relay = loop.New(loop.Config{
		Workers: c.Settings.Workers, Balancer: lb.balancer, Limits: lb.limits(&c.Settings), Timing: timing(&c.Settings), Log: c.Log,
	})
	if usesHTTPS(&c.Settings) {
		var err error
		if lb.https, err = lb.newHTTPS(&c.Settings); err != nil {
			return nil, err
		}
	}
	lb.listeners = newListeners(c.Sockets, lb.relay, lb.https)
	lb.checking = &renewed{func(c *config.Config) any { return c.Health }, lb.newChecker, make(chan struct{}, 1)}
	lb.finding = &renewed{findsBy, lb.newDiscovery, make(chan struct{}, 1)}
	return lb, nil
}

// report hands on what a connection has met.
func (lb *LB) report(addr netip.AddrPort, result health.Result) {
	if c := lb.checker.Load(); c != nil {
		c.Report(addr, result)
	}
}

func timing(c *config.Config) loop.Timing {
	t := c.Timeouts
	return loop.Timing{
		Connect: t.Connect.Duration, Hello: t.Hello.Duration, Opening: t.Opening.Duration,
		KeepAlive: t.KeepAlive.Duration, UserTimeout: t.User.Duration, HalfClosed: t.HalfClosed.Duration,
	}
}

// Run balances until the context ends. Then it takes no new connections any more after the shutdown delay of the settings,
// and lets those that there are end within their drain time, in which it also moves them, idle ones first. It returns nil
// then, or why it could not listen. If the context ends before the listeners are open, they are not opened. It is called once.
func (lb *LB) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer lb.stop()
	group, working := errgroup.WithContext(working)
	group.Go(func() error { return lb.relay.Run(working) })
	group.Go(func() error { return lb.checking.run(working, lb.settings.Load) })
	group.Go(func() error { return lb.finding.run(working, lb.settings.Load) })
	group.Go(func() error { return lb.steer(working) })
	if lb.https != nil {
		group.Go(func() error { return lb.serveHTTPS(working) })
	}
	group.Go(func() error {
		defer stop()
		return lb.listen(ctx, working)
	})
	return group.Wait()
}

// listen has the listeners open from when there are backends until the first context ends or a successor is there, or, in
// haste, until the second one ends.
func (lb *LB) listen(ctx, working context.Context) error {
	if !lb.awaitBackends(ctx, working) {
		return nil
	}
	if err := lb.listeners.apply(working, lb.settings.Load()); err != nil {
		return err
	}
	lb.listeners.closeSpare(lb.log)
	if lb.awaitTrust(ctx, working) {
		close(lb.serving)
	}
	select {
	case <-working.Done():
	case <-lb.succeeded:
		lb.drain(working, 0)
	case <-ctx.Done():
		lb.drain(working, lb.settings.Load().Drain.ShutdownDelay.Duration)
	}
	return nil
}

// serveHTTPS runs the server of requests, and what is mounted in it for a little longer.
func (lb *LB) serveHTTPS(ctx context.Context) error {
	if lb.mounted == nil {
		return lb.https.Run(ctx)
	}
	mounted, stop := context.WithCancel(context.WithoutCancel(ctx))
	serving, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	group.Go(func() error {
		defer cancel()
		return lb.mounted.Run(mounted)
	})
	group.Go(func() error {
		defer stop()
		return lb.https.Run(serving)
	})
	return group.Wait()
}

// stop takes no new connections any more. It may be repeated.
func (lb *LB) stop() {
	lb.listeners.closeAll()
	lb.stopping.Do(func() { close(lb.stopped) })
}

// Serving is closed when all listeners are open.
func (lb *LB) Serving() <-chan struct{} { return lb.serving }

// Succeed tells that another process takes the new connections from now on: Run drains at once, and ends. It returns when
// none are taken here any more. It is called once, after Serving.
func (lb *LB) Succeed() {
	close(lb.succeeded)
	<-lb.stopped
}

// Hurry has Run leave out the rest of the shutdown delay and of the drain time, once it ends. It may be repeated.
func (lb *LB) Hurry() { lb.cut() }

// awaitBackends waits until there is a backend, but not for long: connections that were taken in before would be reset. It
// returns whether to go on: neither of the contexts has ended.
func (lb *LB) awaitBackends(ctx, working context.Context) bool {
	patience := time.NewTimer(firstBackends)
	defer patience.Stop()
	select {
	case <-lb.found:
	case <-patience.C:
		lb.log.Warn("no backend was found yet: connections are reset until there is one")
	case <-ctx.Done():
	case <-working.Done():
	}
	return ctx.Err() == nil && working.Err() == nil
}

// awaitTrust waits until requests can be served, if that is a mode in use, but not for ever, since other listeners may do. It
// returns whether to go on: neither of the contexts has ended.
func (lb *LB) awaitTrust(ctx, working context.Context) bool {
	patience := time.After(firstTrust)
	for lb.https != nil && lb.https.Ready() != nil {
		select {
		case <-ctx.Done():
			return false
		case <-working.Done():
			return false
		case <-patience:
			lb.log.Warn("clients of mode https have to wait", "error", lb.https.Ready())
			return true
		case <-time.After(trustPoll):
		}
	}
	return ctx.Err() == nil && working.Err() == nil
}

// Apply takes over other settings, which have been validated; before all listeners are open it waits for that. Connections go
// on. If it fails, the old ones stay in use.
func (lb *LB) Apply(ctx context.Context, c config.Config) error {
	select {
	case <-lb.serving:
	case <-lb.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	lb.applying.Lock()
	defer lb.applying.Unlock()
	if lb.https == nil && usesHTTPS(&c) {
		return errors.New("listeners: the first one of mode https needs a restart")
	}
	if _, err := discovery.New(lb.finds(&c)); err != nil {
		return fmt.Errorf("backends.static: %w", err)
	}
	if err := lb.listeners.apply(ctx, &c); err != nil {
		return fmt.Errorf("take over the listeners: %w", err)
	}
	lb.settings.Store(&c)
	lb.relay.SetLimits(lb.limits(&c))
	lb.relay.SetTiming(timing(&c))
	if lb.https != nil {
		lb.https.SetLimits(lb.requestLimits(&c))
	}
	lb.checking.reload()
	lb.finding.reload()
	lb.wake()
	return nil
}
