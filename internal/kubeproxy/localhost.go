package kubeproxy

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

	"varco.dev/internal/kubeproxy/listeners"
	"varco.dev/internal/relay"
	"varco.dev/internal/service"
)

// Bounds of NodePorts at [::1].
const (
	maxLocalhosts           = 4096 // NodePorts; the default range has 2,768 numbers
	maxLocalhostConnections = 1024 // TCP connections, of all NodePorts together
	maxLocalhostSessions    = 1024 // UDP sessions, of all NodePorts together
)

// Network opens sockets. Its methods are those of package net.
type Network interface {
	Listen(network, address string) (net.Listener, error)
	ListenPacket(network, address string) (net.PacketConn, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// LocalhostConfig is the Config of a Localhost.
type LocalhostConfig struct {
	Network Network         // optional; default: that of this process
	Count   func(open int)  // optional: told how many NodePorts are served; must not block
	Failed  func(err error) // optional: told each time when one begins not to be; must not block
	Log     *slog.Logger    // required
}

// Localhost serves NodePorts at [::1], TCP and UDP, in user space. The kernel cannot: an address of the loopback interface
// must be reached by that interface (rt6_need_strict), which answers from pods do not do, however they are translated.
//
// As all that comes from the node itself, clients are sent to all endpoints, whatever the traffic policy. They are one
// client to session affinity, because they have one address.
type Localhost struct {
	config                LocalhostConfig
	connections, sessions *relay.Slots
	wake                  chan struct{} // capacity 1: what is wanted has changed
	relays                sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	enabled bool       // [::1] is among the addresses that serve NodePorts
	targets map[service.Key]*nodePortTarget
}

// NewLocalhost returns a server that listens nowhere before Run.
func NewLocalhost(c LocalhostConfig) *Localhost {
	if c.Network == nil {
		c.Network = hostNetwork{}
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	return &Localhost{
		config: c, wake: make(chan struct{}, 1), targets: map[service.Key]*nodePortTarget{},
		connections: relay.NewSlots(maxLocalhostConnections), sessions: relay.NewSlots(maxLocalhostSessions),
	}
}

// Applied takes what was applied to the kernel: changes, or with full the whole state. It does not block, and is safe for
// concurrent use.
func (l *Localhost) Applied(c service.Changes, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	enabled := slices.Contains(c.NodeAddrs, netip.IPv6Loopback())
	moved := full || enabled != l.enabled // where to listen may have changed
	l.enabled = enabled
	before := l.targets
	if full {
		l.targets = map[service.Key]*nodePortTarget{}
	}
	for _, change := range c.Ports {
		k := change.Key()
		known := before[k]
		switch is := localhostPort(change.New); {
		case is == 0:
			delete(l.targets, k)
			moved = moved || known != nil
		case known == nil:
			l.targets[k] = &nodePortTarget{port: change.New}
			moved = true
		default: // who is a client's favourite stays so
			moved = moved || localhostPort(known.port) != is
			known.port = change.New
			l.targets[k] = known
		}
	}
	if moved {
		l.look()
	}
}

// look has Run compare what is wanted with what there is.
func (l *Localhost) look() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// localhostPort returns the NodePort that is to be served for a Service port; 0: none. One without endpoints is not
// listened at, so that the kernel refuses clients.
func localhostPort(p *service.Port) uint16 {
	if p == nil || p.Key.Family != service.IPv6 || p.Key.Protocol == service.SCTP || len(p.Cluster) == 0 {
		return 0
	}
	for _, f := range p.Frontends {
		if f.Kind == service.NodePort {
			return f.Addr.Port()
		}
	}
	return 0
}

// spot is where a Service port is listened at.
type spot struct {
	key  service.Key
	port uint16
}

func (s spot) address() string { return netip.AddrPortFrom(netip.IPv6Loopback(), s.port).String() }

func (l *Localhost) wanted() (out []spot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.enabled {
		return nil
	}
	for k, t := range l.targets {
		out = append(out, spot{k, localhostPort(t.port)})
	}
	slices.SortFunc(out, func(a, b spot) int { return cmp.Or(a.key.Compare(b.key), cmp.Compare(a.port, b.port)) })
	return out
}

// Run serves until the context ends; then it ends all connections and returns nil. Where a NodePort goes before, TCP
// connections go on to their end, as those do that the kernel translates.
func (l *Localhost) Run(ctx context.Context) error {
	defer l.relays.Wait()
	return listeners.Keeper[spot]{
		Wanted: l.wanted, Changed: l.wake, Open: l.open, Failed: l.failed, Count: l.config.Count, Most: maxLocalhosts,
	}.Run(ctx)
}

func (l *Localhost) failed(s spot, err error) {
	l.config.Log.Error("cannot serve a NodePort at localhost, trying again", "port", s.key, "address", s.address(), "error", err)
	l.config.Failed(err)
}
