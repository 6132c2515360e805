package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/kubeproxy/health"
	"varco.dev/internal/kubeproxy/inspect"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/observe"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// Kernel is what the proxy wants of nftables beside the data plane.
type Kernel interface {
	// Check asks whether all that the data plane needs is there. An errors.ErrUnsupported is final.
	Check(ctx context.Context) error
	// Watch calls changed when another program has changed the data plane's tables, until the context ends.
	Watch(ctx context.Context, changed func(reason string)) error
	// Counters reads what was counted, by nft.CountedAt. It may be called at any time.
	Counters(ctx context.Context) (map[nft.Place]nft.Count, error)
}

// Config of a Proxy.
type Config struct {
	Settings config.Config        // required: what was configured
	Client   kubernetes.Interface // required
	NodeName string               // required: the name of this node's Node object
	Families []service.Family     // required: that are served
	PodCIDRs []netip.Prefix       // of the Node, where Settings tells this node's pods by them
	Plane    reconcile.DataPlane  // required
	Kernel   Kernel               // required
	// Localhost is where NodePorts at [::1] are served, in user space. Optional; default: the network of this process.
	Localhost Network
	Flows     flowTable // optional: of tracked connections; without it stale ones stay
	// Served is called once all Services are applied. Optional.
	Served func()
	// Leftovers removes what other implementations have left in the kernel, and says what. It is called after that, so that
	// Services are served all the time. Optional.
	Leftovers func(context.Context) (removed []string, err error)
	// ClientMetrics are of the requests to the API server. They count for the whole process, so one proxy after the other
	// shows the same. Optional.
	ClientMetrics prometheus.Collector
	Flags         map[string]string // of the command line, for /flagz
	SetVerbosity  func(int)         // of the log; optional
	Version       string
	Log           *slog.Logger // required
}

// ErrPodCIDRs is what Run returns when the Node's pod networks are no longer those of the Config: the rules depend on them.
var ErrPodCIDRs = errors.New("the pod networks of this node have changed")

// Proxy is one node's proxy for Services.
type Proxy struct {
	config  Config
	started time.Time

	watcher   *apiwatch.Watcher
	loop      *reconcile.Loop
	ports     *nodePorts
	cleaner   *cleaner
	events    *reporter
	metrics   *metrics
	health    *health.Proxy
	checks    *health.Services
	localhost *Localhost
	inspect   *inspect.Server
	problems  *problems
	damage    damage

	served     chan struct{} // closed once all Services were applied
	servedOnce sync.Once
	podCIDRs   chan struct{} // capacity 1: they have changed

	mu   sync.Mutex // guards node
	node apiwatch.Node
}

// New returns a proxy that does nothing before Run.
func New(c Config) *Proxy {
	p := &Proxy{
		config: c, started: time.Now(), problems: newProblems(),
		served: make(chan struct{}), podCIDRs: make(chan struct{}, 1),
	}
	p.ports = &nodePorts{choice: c.Settings.NodePorts, log: c.Log, update: p.setNodeAddrs}
	p.watcher = apiwatch.New(apiwatch.Config{
		Client: c.Client, NodeName: c.NodeName, Node: p.setNode, NodeIP: c.Settings.NodeIP, Log: c.Log,
		Update:            func(fn func(*service.Table)) { p.loop.Update(fn) },
		IgnoreExternalIPs: !c.Settings.ExternalIPs,
		Seen:              func(kind string) { p.metrics.seen(kind) },
	})
	p.loop = reconcile.New(reconcile.Config{
		Table: service.NewTable(c.NodeName), Plane: c.Plane, Start: p.watcher.Synced(), Log: c.Log,
		MinPause: c.Settings.MinSyncPeriod,
		Report:   func(r reconcile.Result) { p.metrics.observe(r) },
		Applied:  p.applied,
	})
	p.events = newReporter(c.Client, c.NodeName)
	p.cleaner = newCleaner(cleanerConfig{
		Flows: c.Flows, Families: c.Families, Drain: c.Settings.Own.DrainTCP, Local: p.ports.isLocal, Log: c.Log,
		Report: func(f service.Family, took time.Duration, deleted int) { p.metrics.walked(f, took, deleted) },
	})
	p.metrics = newMetrics(p.metricsConfig())
	p.health = health.NewProxy(health.Config{
		State: p.loop.Health, Families: c.Families, Eligible: p.eligible, Answered: p.metrics.answered,
		Timeout: 2 * c.Settings.SyncPeriod,
	})
	p.checks = health.NewServices(health.ServicesConfig{Healthy: p.health.Healthy, Failed: p.events.checkFailed, Log: c.Log})
	p.localhost = NewLocalhost(LocalhostConfig{
		Network: c.Localhost, Count: p.metrics.localhosts, Failed: p.metrics.localhostFailed, Log: c.Log,
	})
	p.inspect = &inspect.Server{Socket: c.Settings.Own.StatusSocket, Source: p, Log: c.Log}
	return p
}

// applied takes what the kernel has now to all who want to know. It must not block.
func (p *Proxy) applied(c service.Changes, full bool) {
	p.servedOnce.Do(func() { close(p.served) })
	p.metrics.applied(c, full)
	p.reportExcess(c)
	p.checks.Apply(c, full)
	p.localhost.Applied(c, full)
	if p.config.Flows != nil {
		p.cleaner.applied(c, full)
	}
}

// Run serves until the context ends; then it returns nil and leaves the kernel's rules in place, so that traffic goes on
// while the proxy is exchanged. It returns an error at once if the kernel cannot do what is needed, and ErrPodCIDRs.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.config.Kernel.Check(ctx); err != nil {
		return fmt.Errorf("check nftables: %w", err)
	}
	// The local addresses must be known before the first apply, or NodePorts would be cut off for a moment.
	if err := p.ports.readLocal(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		p.ports.run, p.watcher.Run, p.settle, p.loop.Run, p.watchKernel, p.followPodCIDRs,
		p.events.Run, p.checks.Run, p.inspect.Run, p.afterFirst, p.serveHealth, p.serveMetrics,
	} {
		group.Go(func() error { return part(ctx) })
	}
	if p.config.Flows != nil {
		group.Go(func() error { return p.cleaner.Run(ctx) })
	}
	if slices.Contains(p.config.Families, service.IPv6) {
		group.Go(func() error { return p.localhost.Run(ctx) })
	}
	p.events.starting()
	return group.Wait()
}

// settle waits for the first lists.
func (p *Proxy) settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-p.watcher.Synced():
		p.ports.settled()
		p.lookForNode()
	}
	return nil
}

// watchKernel has repaired what other programs do to the tables. Where they cannot be watched, that is left to the next
// change, or to the hourly comparison.
func (p *Proxy) watchKernel(ctx context.Context) error {
	if err := p.config.Kernel.Watch(ctx, p.repair); err != nil {
		p.problems.set("watch", err)
		p.config.Log.Error("cannot see what other programs do to the tables of Services", "error", err)
	}
	return nil
}

// afterFirst does what is to be done once all Services are served.
func (p *Proxy) afterFirst(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.served:
	}
	if p.config.Served != nil {
		p.config.Served()
	}
	p.removeLeftovers(ctx)
	taint := p.config.Settings.Own.RemoveTaint
	if taint.Key == "" {
		return nil
	}
	if err := removeTaint(ctx, p.config.Client, p.config.NodeName, taint); err != nil {
		p.problems.set("taint", err)
		p.config.Log.Error("pods may be kept away from this node", "error", err)
	}
	return nil
}

func (p *Proxy) removeLeftovers(ctx context.Context) {
	if p.config.Leftovers == nil {
		return
	}
	removed, err := p.config.Leftovers(ctx)
	if len(removed) > 0 {
		p.config.Log.Info("removed what another kube-proxy has left in the kernel", "removed", removed)
	}
	if err != nil && ctx.Err() == nil {
		p.problems.set("leftovers", err)
		p.config.Log.Error("another kube-proxy has left rules in the kernel that may take connections away", "error", err)
	}
}

func (p *Proxy) serveHealth(ctx context.Context) error {
	return observe.Server{
		Address: addressOf(p.config.Settings.Health), Handler: p.health.Handler(), Log: p.config.Log,
		HardFail: p.config.Settings.BindHardFail, Failed: p.events.healthFailed,
	}.Run(ctx)
}

func (p *Proxy) serveMetrics(ctx context.Context) error {
	return observe.Server{
		Address: addressOf(p.config.Settings.Metrics), Handler: p.pages().Handler(), Log: p.config.Log,
		HardFail: p.config.Settings.BindHardFail, Failed: p.events.metricsFailed,
	}.Run(ctx)
}

// addressOf is empty for an address that is nowhere.
func addressOf(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
