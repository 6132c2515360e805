package health

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

	"varco.dev/internal/kubeproxy/listeners"
	"varco.dev/internal/service"
)

// maxListeners bounds the addresses and ports that are listened at.
const maxListeners = 4096

// ServicesConfig is the Config of Services.
type ServicesConfig struct {
	Healthy func() bool // required: whether the proxy as a whole is healthy
	// Failed is told when a Service's port cannot be listened at, once until it can. Optional; must not block.
	Failed func(svc service.Name, port uint16, err error)
	Log    *slog.Logger // required
	// Listen is net.ListenConfig.Listen, or another for tests. Optional.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Services answers load balancers that check whether this node has endpoints of a Service whose external traffic policy
// is Local (healthCheckNodePort, KEP-27 and KEP-3836). It listens at the addresses that serve NodePorts.
type Services struct {
	config ServicesConfig
	wake   chan struct{} // capacity 1: what is wanted has changed

	mu     sync.Mutex // guards the fields below
	checks map[service.Name]service.HealthCheck
	addrs  []netip.Addr
}

// NewServices returns a server that listens nowhere before Run.
func NewServices(c ServicesConfig) *Services {
	if c.Failed == nil {
		c.Failed = func(service.Name, uint16, error) {}
	}
	if c.Listen == nil {
		c.Listen = (&net.ListenConfig{}).Listen
	}
	return &Services{config: c, wake: make(chan struct{}, 1), checks: map[service.Name]service.HealthCheck{}}
}

// Apply takes what was applied to the kernel: changes, or with full the whole state. It does not block, and is safe for
// concurrent use.
func (s *Services) Apply(c service.Changes, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !full && len(c.Health) == 0 && slices.Equal(s.addrs, c.NodeAddrs) {
		return
	}
	if full {
		clear(s.checks)
	}
	for _, change := range c.Health {
		if change.New != nil {
			s.checks[change.New.Service] = *change.New
		} else {
			delete(s.checks, change.Old.Service)
		}
	}
	s.addrs = c.NodeAddrs
	s.look()
}

// look has Run compare what is wanted with what there is.
func (s *Services) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// place is where a Service's health is asked for.
type place struct {
	service service.Name
	addr    netip.AddrPort
}

func (p place) compare(q place) int {
	if c := p.service.Compare(q.service); c != 0 {
		return c
	}
	return p.addr.Compare(q.addr)
}

// wanted returns the places to listen at, sorted.
func (s *Services) wanted() []place {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := listening(s.addrs)
	var out []place
	for name, check := range s.checks {
		for _, a := range addrs {
			if check.Families[index(service.FamilyOf(a))] {
				out = append(out, place{name, netip.AddrPortFrom(a, check.Port)})
			}
		}
	}
	slices.SortFunc(out, place.compare)
	return out
}

// listening returns the addresses to bind: where the unspecified one of a family is served, it takes in all others.
// Link-local IPv6 addresses cannot be bound without their link.
func listening(addrs []netip.Addr) (out []netip.Addr) {
	for _, a := range addrs {
		all := netip.IPv6Unspecified()
		if a.Is4() {
			all = netip.IPv4Unspecified()
		}
		covered := a != all && slices.Contains(addrs, all)
		if !covered && (a.Is4() || !a.IsLinkLocalUnicast()) {
			out = append(out, a)
		}
	}
	return out
}

// count returns a Service's ready endpoints on this node in one family.
func (s *Services) count(name service.Name, f service.Family) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks[name].Local[index(f)]
}

// index is a family's place in the pairs of a HealthCheck.
func index(f service.Family) int {
	if f == service.IPv4 {
		return 0
	}
	return 1
}

// Run listens as wanted until the context ends; then it returns nil, and nothing listens any more.
func (s *Services) Run(ctx context.Context) error {
	return listeners.Keeper[place]{
		Wanted: s.wanted, Changed: s.wake, Open: s.listen, Failed: s.failed, Most: maxListeners,
	}.Run(ctx)
}

func (s *Services) failed(p place, err error) {
	s.config.Log.Error("cannot serve the health check of a Service, trying again", "service", p.service, "address", p.addr,
		"error", err)
	s.config.Failed(p.service, p.addr.Port(), err)
}
