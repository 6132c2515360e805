package discovery

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// MaxTargets bounds what is found: each is probed once a second, and no cluster has that many API servers. Those that
	// the configuration lists come first.
	MaxTargets = 100
	// DefaultPeriod is the pause between two look-ups of a name.
	DefaultPeriod = 10 * time.Second
	// LookupTimeout bounds one look-up of a name.
	LookupTimeout = 5 * time.Second
)

// The sources of what is found, apart from names, whose source is "dns " and the name.
const (
	sourceStatic     = "static"
	sourceKubernetes = "kubernetes"
	sourceCache      = "cache" // a name or the EndpointSlices have not answered yet; they said so before the start
)

// Found is where an API server listens.
type Found struct {
	Addr   netip.AddrPort // not IPv4-mapped
	Zone   string         // as the configuration says of the address, or of the name that stands for it; "": unknown
	Source string         // "static", "dns NAME", "kubernetes" or "cache": the first that counts and has it
}

// Static is a line of the configuration.
type Static struct {
	Address string // HOST:PORT; the host is an address or a name, the port a number
	Zone    string // optional
}

// Resolver looks names up; net.Resolver is one. It blocks, but not beyond the end of its context, and is safe for concurrent
// use. The network is "ip4" or "ip6". A *net.DNSError with IsNotFound says that there is no such address, any other error
// that the answer is not known.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config is what New wants to know.
type Config struct {
	Static []Static // with Slices, they are where to begin; see Discovery
	// Slices is optional: it calls changed, from one goroutine at a time, with all addresses whenever the API server says
	// which they are, and returns when its context ends. If it returns before, with an error or without, it is called
	// again after a pause, so it may also begin with what can fail, such as a kubeconfig that kubelet has yet to write.
	Slices    func(ctx context.Context, changed func([]netip.AddrPort)) error
	CacheFile string        // optional
	Resolver  Resolver      // default: net.DefaultResolver
	Period    time.Duration // between two look-ups of a name, more or less a tenth; default: DefaultPeriod
	// Own is optional: it tells addresses that must not be found, since the own listeners have them: connections would go
	// round in circles. New and Run's goroutine call it.
	Own func(netip.AddrPort) bool
	// Changed is required: it is called with all that is found, sorted by address, at first and whenever that is not what
	// it was called with before, and never with nothing. It is called from Run's goroutine and must not block for long.
	Changed func([]Found)
	Log     *slog.Logger // required
	// After is optional: the Discovery that this one takes the place of, whose Run has returned. What it was told counts
	// until the same source answers again, so that a new configuration does not begin with less.
	After *Discovery
}

// Discovery finds API servers. Without Config.Slices, these are all that Config.Static lists or names.
//
// With it, those are seeds: they count until the EndpointSlices have answered, which alone count from then on, since servers
// come and go, and nobody changes the configurations of all nodes each time. Seeds count again after Rescue.
type Discovery struct {
	config  Config
	static  []Found   // addresses of the configuration
	names   []*source // of the configuration
	slices  *source   // nil: none
	cache   *cache    // nil: none
	answers chan answer
	rescue  chan struct{} // capacity 1
	over    bool          // more than MaxTargets were found, which was logged
	told    bool          // Changed was called

	mu    sync.Mutex // guards found, and what Sources reads
	found []Found
}

// New returns a discovery that has found, before Run, the addresses that need not be asked for, and what Config.After was
// told. Its error names the lines of Config.Static that are no HOST:PORT; they are counted from 0.
func New(c Config) (*Discovery, error) {
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	if c.Period <= 0 {
		c.Period = DefaultPeriod
	}
	d := &Discovery{config: c, answers: make(chan answer), rescue: make(chan struct{}, 1)}
	if err := d.read(c.Static); err != nil {
		return nil, err
	}
	if c.Slices != nil {
		d.slices = &source{name: sourceKubernetes, key: sourceKubernetes}
	}
	if c.CacheFile != "" {
		d.cache = newCache(c.CacheFile, c.Log)
	}
	if c.After != nil {
		d.inherit(c.After)
	}
	d.config.After = nil // else all that ever were would be kept
	d.found, _ = d.merge()
	return d, nil
}

// Run finds until the context ends; then it returns nil. It is called once.
func (d *Discovery) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	d.logOwn()
	d.load()
	d.publish()
	if d.cache != nil {
		last, end := context.WithCancel(context.WithoutCancel(ctx)) // what is taken last is written too
		defer end()
		running.Go(func() { d.cache.run(last) })
	}
	for _, s := range d.names {
		l := lookup{config: d.config, source: s, known: s.families(), answered: s.answered, answers: d.answers}
		running.Go(func() { l.run(ctx) })
	}
	if d.slices != nil {
		running.Go(func() { d.watch(ctx) })
	}
	d.follow(ctx)
	return nil
}

// follow takes answers until the context ends.
func (d *Discovery) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-d.answers:
			d.take(a)
		case <-d.rescue:
			d.distrust()
		}
		d.publish()
	}
}

// Found returns all that is found now, sorted by address. It is safe for concurrent use.
func (d *Discovery) Found() []Found {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.found)
}

// Rescue says that none of what is found works. Then the seeds count beside what the EndpointSlices said, until these say
// something else: all servers may have moved while nobody here could be told. It does not block and is safe for concurrent
// use; called again it changes nothing.
func (d *Discovery) Rescue() {
	select {
	case d.rescue <- struct{}{}:
	default:
	}
}

// publish tells what is found if it has changed.
func (d *Discovery) publish() {
	found, left := d.merge()
	if over := left > 0; over != d.over {
		if d.over = over; over {
			d.config.Log.Warn("leaves out API servers, since too many were found", "most", MaxTargets, "left_out", left)
		}
	}
	if len(found) == 0 || d.told && slices.Equal(found, d.found) {
		return
	}
	d.told = true
	d.mu.Lock()
	d.found = found
	d.mu.Unlock()
	d.config.Changed(slices.Clone(found))
}
