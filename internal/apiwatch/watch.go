package apiwatch

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// labelServiceProxyName marks Services that another proxy serves (well-known label).
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

const (
	// slowSync is how long the first listing may take before the log says so, again and again.
	slowSync = 10 * time.Second
	// cidrsSync is how long ServiceCIDRs may take after all else is listed: traffic does not depend on them.
	cidrsSync = 3 * time.Second
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
	source  *feed.Source
	started time.Time // of Run
	synced  chan struct{}
}

// New returns a watcher that does nothing before Run.
func New(c Config) *Watcher {
	if c.Node == nil {
		c.Node = func(Node) {}
	}
	source := feed.NewSource(c.Client, c.Log)
	source.Seen = c.Seen
	return &Watcher{config: c, source: source, synced: make(chan struct{})}
}

// Synced is closed once all objects that the API server had at the start are in the table. Not waited for are a Node
// object that does not exist, and ServiceCIDRs that the API server does not have, does not show, or does not list in time.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// Run watches until the context ends; then it returns nil. An API server that goes away is waited for. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	w.started = time.Now()
	feeds := w.feeds()
	needed, cidrs := feeds[:len(feeds)-1], feeds[len(feeds)-1:]
	defer feed.Start(ctx, feeds)()
	for !feed.Wait(ctx, needed, slowSync) {
		if ctx.Err() != nil {
			return nil
		}
		w.config.Log.Warn("still waiting for the API server to list Services, EndpointSlices and this node", "error", w.source.Reason(ctx))
	}
	if !feed.Wait(ctx, cidrs, cidrsSync) && ctx.Err() == nil {
		w.config.Log.Warn("goes on without ServiceCIDRs, which the API server does not list", "error", w.source.Contact.LastError())
	}
	close(w.synced)
	w.source.Contact.Follow(ctx)
	return nil
}

// Lost returns since when the API server does not answer, and its last error; zero while it does. It is safe for concurrent
// use.
func (w *Watcher) Lost() (since time.Time, err error) { return w.source.Contact.Lost() }
