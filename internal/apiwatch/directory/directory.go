package directory

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// slowSync is how long the first listing may take before the log says so, again and again.
const slowSync = 10 * time.Second

// Config of a Directory.
type Config struct {
	// Client is required. It needs to get, list and watch services, endpointslices, pods and nodes; what it may not list is
	// asked for when it is looked up. Its limit of requests per second, five if it has none set, is one for look-ups too.
	Client kubernetes.Interface
	Log    *slog.Logger // required
}

// Directory is what the API server says, kept up to date. It is safe for concurrent use. What it returns is shared and must
// not be changed; it does not change either.
type Directory struct {
	config   Config
	source   *feed.Source
	synced   chan struct{}
	services *services
	pods     *pods
	nodes    *nodes
	ask      asking

	podsListed atomic.Bool // changes of pods are told
}

// asking is how single objects are asked for.
type asking struct {
	services *live[Service]
	pods     *live[Pod]
	nodes    *live[Node]
}

// New returns a directory that knows nothing before Run.
func New(c Config) *Directory {
	versions := &atomic.Uint64{}
	known := newPods(versions)
	return &Directory{
		config: c, source: feed.NewSource(c.Client, c.Log), synced: make(chan struct{}),
		services: newServices(versions, known), pods: known, nodes: newNodes(), ask: newAsking(c.Client),
	}
}

// Run watches until the context ends; then it returns nil. An API server that goes away is waited for, and what is known
// is served on. It is called once.
func (d *Directory) Run(ctx context.Context) error {
	feeds := d.feeds()
	defer feed.Start(ctx, feeds)()
	for !feed.Wait(ctx, feeds, slowSync) {
		if ctx.Err() != nil {
			return nil
		}
		d.config.Log.Warn("still waiting for the API server to list Services, EndpointSlices, Pods and Nodes", "error", d.source.Reason(ctx))
	}
	close(d.synced)
	d.source.Contact.Follow(ctx)
	return nil
}

// Synced is closed once all objects that the API server had at the start are known, but for kinds that it does not let be
// listed.
func (d *Directory) Synced() <-chan struct{} { return d.synced }

// Lost returns since when the API server does not answer, and its last error; zero while it does.
func (d *Directory) Lost() (since time.Time, err error) { return d.source.Contact.Lost() }

// Service returns a Service. Errors are those of package k8s.io/apimachinery/pkg/api/errors:
//   - NotFound, BadRequest, Forbidden, TooManyRequests as the API server answers, the first only if it did;
//   - ServiceUnavailable, often with a time to try again after, if it did not answer, if too much is looked up at once, or
//     if there was no first list yet, for which look-ups wait for some seconds.
//
// If the context ends before there is an answer, its error is returned, wrapped.
func (d *Directory) Service(ctx context.Context, name service.Name) (*Service, error) {
	return find(ctx, d, d.services.get, d.ask.services, name)
}

// Slices returns the EndpointSlices of a Service, sorted by their names: the same slice for as long as nothing changes. It
// does not wait for the first list.
func (d *Directory) Slices(of service.Name) []*Slice { return d.services.slicesOf(of) }

// Pod returns a Pod; errors are as of Service.
func (d *Directory) Pod(ctx context.Context, name service.Name) (*Pod, error) {
	return find(ctx, d, d.pods.get, d.ask.pods, name)
}

// Node returns a Node; errors are as of Service.
func (d *Directory) Node(ctx context.Context, name string) (*Node, error) {
	return find(ctx, d, d.nodes.get, d.ask.nodes, service.Name{Name: name})
}

// Version returns a number that changes whenever the Service, one of its EndpointSlices, or a Pod that these refer to
// changes, appears or goes. Numbers are not used again, also if a Service is made anew. Who computes from these objects reads
// it first: if it is still the same later, so is the result. It is 0 while the watch does not know the Service, or Pods may
// not be listed, so that their changes are not known: what is computed then must not be kept, nor what is computed where a
// look-up failed.
func (d *Directory) Version(name service.Name) uint64 {
	if !d.podsListed.Load() {
		return 0
	}
	return d.services.version(name)
}

// APIServers returns where the API servers can be reached: all endpoints of the Service default/kubernetes, ready or not, and
// its cluster IPs with its ports, sorted. It costs next to nothing.
func (d *Directory) APIServers() []netip.AddrPort { return *d.services.apiServers.Load() }
