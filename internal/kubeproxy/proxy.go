package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/observe"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// Config of a Proxy.
type Config struct {
	Client         kubernetes.Interface        // required
	NodeName       string                      // required: the name of this node's Node object
	Plane          reconcile.DataPlane         // required
	Check          func(context.Context) error // required: asks the kernel whether the data plane can work
	NodePorts      NodePortAddresses           // where NodePorts are served
	HealthAddress  string                      // optional: where /healthz, /livez and /readyz are served
	MetricsAddress string                      // optional: where /metrics is served
	Log            *slog.Logger                // required
}

// Proxy is one node's proxy for Services.
type Proxy struct {
	config  Config
	watcher *apiwatch.Watcher
	loop    *reconcile.Loop
	ports   *nodePorts
	metrics *metrics
}

// New returns a proxy that does nothing before Run.
func New(c Config) *Proxy {
	p := &Proxy{config: c, metrics: newMetrics()}
	p.ports = &nodePorts{choice: c.NodePorts, log: c.Log, update: p.setNodeAddrs}
	p.watcher = apiwatch.New(apiwatch.Config{
		Client:   c.Client,
		NodeName: c.NodeName,
		Update:   func(fn func(*service.Table)) { p.loop.Update(fn) },
		Node:     p.ports.setNode,
		Log:      c.Log,
	})
	p.loop = reconcile.New(reconcile.Config{
		Table:  service.NewTable(c.NodeName),
		Plane:  c.Plane,
		Start:  p.watcher.Synced(),
		Log:    c.Log,
		Report: p.metrics.observe,
	})
	return p
}

func (p *Proxy) setNodeAddrs(addrs []netip.Addr) {
	p.loop.Update(func(t *service.Table) { t.SetNodeAddrs(addrs) })
}

// Run serves until the context ends; then it returns nil and leaves the kernel's rules in place, so that traffic goes on
// while the proxy is exchanged. It returns an error at once if the kernel cannot do what is needed.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.config.Check(ctx); err != nil {
		return fmt.Errorf("check nftables: %w", err)
	}
	// The local addresses must be known before the first apply, or NodePorts would be cut off for a moment.
	if err := p.ports.readLocal(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.ports.run(ctx) })
	group.Go(func() error { return p.watcher.Run(ctx) })
	group.Go(func() error { return p.settle(ctx) })
	group.Go(func() error { return p.loop.Run(ctx) })
	group.Go(func() error { return p.serve(ctx, p.config.HealthAddress, p.healthHandler()) })
	group.Go(func() error { return p.serve(ctx, p.config.MetricsAddress, p.metrics.handler()) })
	return group.Wait()
}

// settle waits for the first lists.
func (p *Proxy) settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-p.watcher.Synced():
		p.ports.settled()
	}
	return nil
}

func (p *Proxy) serve(ctx context.Context, address string, handler http.Handler) error {
	observe.Keep(ctx, address, handler, p.config.Log)
	return nil
}

func (p *Proxy) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", observe.Check(p.alive))
	mux.Handle("GET /livez", observe.Check(p.alive))
	mux.Handle("GET /readyz", observe.Check(p.ready))
	return mux
}

// alive fails while a change has been waiting for too long to be applied.
func (p *Proxy) alive() error {
	h := p.loop.Health()
	if !h.Stuck(time.Now()) {
		return nil
	}
	waits := fmt.Errorf("a change waits since %s to be applied", h.PendingFrom.Format(time.RFC3339))
	return errors.Join(waits, h.Err)
}

// ready fails until all Services were applied once.
func (p *Proxy) ready() error {
	if p.loop.Health().Synced {
		return nil
	}
	return errors.New("not all Services are applied yet")
}
