package health

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The defaults of Config. With them, and with Policy's, a backend that hangs or vanishes is Down after 4.2 s at most.
const (
	DefaultInterval  = time.Second
	DefaultTimeout   = time.Second
	DefaultHandshake = 1500 * time.Millisecond // a SYN that was lost is sent again after 1 s (RFC 6298)
	DefaultPath      = "/readyz"
)

// Config is what New wants to know.
type Config struct {
	Interval  time.Duration // from probe to probe of a backend, a fifth more or less; default DefaultInterval
	Timeout   time.Duration // of an answer, and of a connection that must be made first; default DefaultTimeout
	Handshake time.Duration // of the new connection, TLS included, that is tried after a failure; default DefaultHandshake
	Path      string        // default DefaultPath
	// TLS returns how to connect: CA, client certificate, ServerName (default: the backend's address). Required. It is called for
	// each probe and must be cheap, and return the same pointer until something has changed: then the connection is made anew. If
	// it fails nothing is probed.
	TLS func(context.Context) (*tls.Config, error)
	// Token returns the bearer token to send; nil or "": none. It is called for each probe.
	Token func() (string, error)
	// Dial makes a TCP connection; default: that of a net.Dialer.
	Dial   func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	Policy Policy
	// LastByte returns when a byte last came from a backend on any session; nil or the zero time: never. It must not block.
	LastByte func(netip.AddrPort) time.Time
	// Changed is told all verdicts, sorted by address, when a state, Open, Cut, Proven or the set has changed. It is called by one
	// goroutine of Run, and always with the newest.
	Changed func([]Verdict)
	Random  func() float64 // in [0, 1), for jitter; default: rand.Float64
	Log     *slog.Logger   // required
}

func (c Config) withDefaults() Config {
	c.Interval, c.Timeout = or(c.Interval, DefaultInterval), or(c.Timeout, DefaultTimeout)
	c.Policy.Prompt, c.Policy.Recent = or(c.Policy.Prompt, c.Timeout/2), or(c.Policy.Recent, c.Interval*3/2)
	c.Handshake, c.Policy = or(c.Handshake, DefaultHandshake), c.Policy.withDefaults()
	if c.Path == "" {
		c.Path = DefaultPath
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		}
	}
	if c.LastByte == nil {
		c.LastByte = func(netip.AddrPort) time.Time { return time.Time{} }
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	return c
}

// Checker probes backends, all in parallel, each by a goroutine with a clock of its own. It is safe for concurrent use.
type Checker struct {
	config  Config
	resized chan struct{} // holds one: the set has changed
	news    chan struct{} // holds one: verdicts may have changed

	mu      sync.Mutex // guards the fields below
	machine *Machine
	probers map[netip.AddrPort]*prober // of the set
}

// New returns a checker without backends.
func New(c Config) *Checker {
	c = c.withDefaults()
	return &Checker{
		config: c, resized: make(chan struct{}, 1), news: make(chan struct{}, 1),
		machine: NewMachine(c.Policy), probers: map[netip.AddrPort]*prober{},
	}
}

// Set has it probe these backends and no others; what is known of those that stay is kept. Probes of those that go are ended.
func (c *Checker) Set(addrs []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.machine.Set(addrs, time.Now())
	old := c.probers
	c.probers = make(map[netip.AddrPort]*prober, len(addrs))
	for _, addr := range addrs {
		p := old[addr]
		if p == nil {
			p = newProber(c, addr)
		}
		c.probers[addr] = p
	}
	signal(c.resized)
	signal(c.news)
}

// signal does not block: who waits has yet to look if one is there already.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Report tells what a session met with: Refused, Unreachable, Hung (silent) or Broken (closed before its first byte). It does
// not block. A backend that is not Down is then probed at once on a new connection, leastGap after the last probe at the earliest.
func (c *Checker) Report(addr netip.AddrPort, r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.probers[addr]
	if p == nil {
		return
	}
	if down := c.machine.backends[addr].state == Down; !down {
		signal(p.kick)
	}
	if c.machine.Passive(addr, r, time.Now()) {
		signal(c.news)
	}
}

// Verdicts returns what is known now, sorted by address.
func (c *Checker) Verdicts() []Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.machine.Verdicts()
}

// observe takes a result of a prober; that of one whose backend is gone counts no more.
func (c *Checker) observe(p *prober, o Observation) {
	o.LastByte = c.config.LastByte(p.addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probers[p.addr] == p && c.machine.Observe(p.addr, o, time.Now()) {
		signal(c.news)
	}
}

// Run probes until the context ends; then it returns nil, and nothing of it is left.
func (c *Checker) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { c.announce(ctx) })
	running := map[*prober]context.CancelFunc{}
	for {
		c.reconcile(ctx, running, &all)
		select {
		case <-c.resized:
		case <-ctx.Done():
			return nil
		}
	}
}

// reconcile starts and ends probers until those of the set run.
func (c *Checker) reconcile(ctx context.Context, running map[*prober]context.CancelFunc, all *sync.WaitGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, end := range running {
		if c.probers[p.addr] != p {
			end()
			delete(running, p)
		}
	}
	for _, p := range c.probers {
		if running[p] == nil {
			its, end := context.WithCancel(ctx)
			running[p] = end
			all.Go(func() { p.run(its) })
		}
	}
}
