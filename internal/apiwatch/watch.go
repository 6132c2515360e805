package apiwatch

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"varco.dev/internal/service"
)

// labelServiceProxyName marks Services that another proxy serves (well-known label).
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

const (
	// shutdownTimeout bounds the wait for reflectors at the end.
	shutdownTimeout = time.Second
	// askTimeout bounds the question why there is no list yet.
	askTimeout = 5 * time.Second
	// slowSync is how long the first listing may take before the log says so, again and again.
	slowSync = 10 * time.Second
	// cidrsSync is how long ServiceCIDRs may take after all else is listed: traffic does not depend on them.
	cidrsSync = 3 * time.Second
	// minBackoff and maxBackoff bound the pause after a list or watch that failed; it doubles, with a jitter of as much
	// again. Upstream goes up to 30 s, and so does its delay after the API server is back.
	minBackoff = 500 * time.Millisecond
	maxBackoff = 3 * time.Second
)

// Config of a Watcher.
type Config struct {
	Client   kubernetes.Interface       // required
	NodeName string                     // required: the own node
	Update   func(func(*service.Table)) // required: runs a change of the table; must not block for long
	Node     func(Node)                 // optional: told the own node when it is known and when it changes; must not block
	Seen     func(kind string)          // optional: told of each object of a kind, "Service" say, that is listed, changes or goes; before Update
	NodeIP   netip.Addr                 // optional: stands for the own node, in the place of its address of the same family
	Log      *slog.Logger               // required
	// IgnoreExternalIPs leaves out all external IPs (upstream's feature gate AllowServiceExternalIPs, turned off): whoever
	// may write a Service can take over addresses by them (CVE-2020-8554).
	IgnoreExternalIPs bool
}

// Watcher keeps a service.Table as the API server says: Services, EndpointSlices, ServiceCIDRs, and the zone and
// addresses of the own node. The addresses at which NodePorts are served are not its business.
type Watcher struct {
	config  Config
	contact *contact
	started time.Time // of Run
	synced  chan struct{}
}

// New returns a watcher that does nothing before Run.
func New(c Config) *Watcher {
	if c.Node == nil {
		c.Node = func(Node) {}
	}
	if c.Seen == nil {
		c.Seen = func(string) {}
	}
	return &Watcher{config: c, contact: newContact(c.Log), synced: make(chan struct{})}
}

// Synced is closed once all objects that the API server had at the start are in the table. Not waited for are a Node
// object that does not exist, and ServiceCIDRs that the API server does not have, does not show, or does not list in time.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// Run watches until the context ends; then it returns nil. An API server that goes away is waited for. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	w.started = time.Now()
	feeds := w.feeds()
	needed, cidrs := feeds[:len(feeds)-1], feeds[len(feeds)-1:]
	var running sync.WaitGroup
	for _, f := range feeds {
		running.Go(func() { f.run(ctx) })
	}
	defer waitShortly(&running)
	for !waitFor(ctx, needed, slowSync) {
		if ctx.Err() != nil {
			return nil
		}
		w.config.Log.Warn("still waiting for the API server to list Services, EndpointSlices and this node", "error", w.reason(ctx))
	}
	if !waitFor(ctx, cidrs, cidrsSync) && ctx.Err() == nil {
		w.config.Log.Warn("goes on without ServiceCIDRs, which the API server does not list", "error", w.contact.lastError())
	}
	close(w.synced)
	w.contact.follow(ctx)
	return nil
}

// Lost returns since when the API server does not answer, and its last error; zero while it does. It is safe for concurrent
// use.
func (w *Watcher) Lost() (since time.Time, err error) {
	if since, err = w.contact.since(); time.Since(since) < lostAfter {
		return time.Time{}, nil
	}
	return since, err
}

// waitShortly waits for the reflectors to end, but not for long: one that waits to try a dead API server again sleeps on
// for some seconds, and does nothing any more.
func waitShortly(running *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(shutdownTimeout):
	}
}

// waitFor returns true once all feeds have handed on their first list, false if that takes long.
func waitFor(ctx context.Context, feeds []feed, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, f := range feeds {
		select {
		case <-ctx.Done():
			return false
		case <-f.synced:
		}
	}
	return true
}

// reason says why there is no list yet.
func (w *Watcher) reason(ctx context.Context) error {
	if err := w.contact.lastError(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := w.config.Client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return err
	}
	return errors.New("it answers, but not with these lists")
}

// feed is what keeps one kind of objects up to date.
type feed struct {
	run    func(context.Context)
	synced <-chan struct{} // closed when the first list was handed on
}

func options(name string) cache.ReflectorOptions {
	steps := int(maxBackoff / minBackoff) // more than it takes to reach the longest pause
	return cache.ReflectorOptions{
		Name:    name,
		Backoff: &wait.Backoff{Duration: minBackoff, Cap: maxBackoff, Steps: steps, Factor: 2, Jitter: 1},
	}
}
