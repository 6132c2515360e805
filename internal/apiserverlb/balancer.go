package apiserverlb

import (
	"net/netip"

	"varco.dev/internal/backend"
	"varco.dev/internal/backend/health"
	"varco.dev/internal/relay/loop"
)

// Pick implements loop.Balancer: it chooses the backend of a connection, and takes note of what comes of it.
func (b *balancer) Pick(_ loop.Client, tried []netip.AddrPort) (loop.Attempt, bool) {
	lease, err := b.connections.Pick(backend.Want{Avoid: tried})
	if err != nil {
		return loop.Attempt{}, false
	}
	return loop.Attempt{Backend: lease.Addr(), Report: func(e loop.Event) { b.note(lease, e) }}, true
}

// balancer chooses backends. It is safe for concurrent use.
type balancer struct {
	connections *backend.Pool // leases are connections
	requests    *backend.Pool // leases are requests
	report      func(netip.AddrPort, health.Result)
}

func newBalancer(report func(netip.AddrPort, health.Result)) *balancer {
	return &balancer{
		connections: backend.NewPool(backend.Config{Least: true}),
		requests:    backend.NewPool(backend.Config{}),
		report:      report,
	}
}

// set has both pools hold the same targets.
func (b *balancer) set(targets []backend.Target) {
	b.connections.Set(targets)
	b.requests.Set(targets)
}

// note tells the pool and the checks what a connection has met. That it stands says nothing: the kernel of a process that is
// stopped takes connections, too.
func (b *balancer) note(lease backend.Lease, e loop.Event) {
	switch e {
	case loop.Answered:
		lease.Answered(0)
	case loop.Refused:
		b.failed(lease, backend.Unreachable, health.Refused)
	case loop.Unreachable:
		b.failed(lease, backend.Unreachable, health.Unreachable)
	case loop.Silent:
		b.failed(lease, backend.Unreachable, health.Hung)
	case loop.Broken:
		b.failed(lease, backend.Broken, health.Broken)
	case loop.Ended:
		lease.Done()
	}
}

func (b *balancer) failed(lease backend.Lease, how backend.Failure, result health.Result) {
	lease.Failed(how)
	b.report(lease.Addr(), result)
}
