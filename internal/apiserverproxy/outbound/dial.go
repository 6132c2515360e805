package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// dialer returns how connections are made, guarded and counted.
func dialer(c *Config, g *guard) DialFunc {
	d := &net.Dialer{Timeout: c.DialTimeout, KeepAlive: keepAlive, Resolver: c.Resolver, ControlContext: g.control}
	dial := d.DialContext
	if c.Egress != nil {
		resolver := c.Resolver
		if resolver == nil {
			resolver = net.DefaultResolver
		}
		e := &egress{through: c.Egress, guard: g, resolver: resolver, timeout: c.DialTimeout, slots: newSlots()}
		dial = e.dial
	}
	return watched(dial, c.IdleTimeout, g.metrics)
}

// watched counts connections, and closes those that fall silent.
func watched(dial DialFunc, idle time.Duration, m *metrics) DialFunc {
	ok, failed := m.dials.WithLabelValues("ok"), m.dials.WithLabelValues("failed")
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			failed.Inc()
			return nil, err
		}
		ok.Inc()
		if idle > 0 {
			conn = watch(conn, idle)
		}
		return conn, nil
	}
}

// egress dials through somebody else, who would resolve names by itself: it only ever gets addresses that were looked at.
type egress struct {
	through  DialFunc
	guard    *guard
	resolver *net.Resolver
	timeout  time.Duration
	slots    *slots
}

func (e *egress) dial(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	targets, err := e.resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, to := range targets {
		conn, err := e.dialOne(ctx, to)
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// resolve returns the addresses of a host:port, at least one.
func (e *egress) resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	if to, err := netip.ParseAddrPort(address); err == nil {
		return []netip.AddrPort{to}, nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("split the target's address: %w", err)
	}
	port, err := e.resolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, fmt.Errorf("resolve the target's port: %w", err)
	}
	addrs, err := e.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve the target's name: %w", err)
	}
	targets := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		targets[i] = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return targets, nil
}

// dialOne dials an address if it may be. Not every egress ends with the context (konnectivity's over gRPC does not): what
// comes too late is closed.
func (e *egress) dialOne(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if err := e.guard.check(to); err != nil {
		return nil, opError(to, err)
	}
	give, err := e.slots.take(ctx, to)
	if err != nil {
		return nil, opError(to, err)
	}
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled)
	go func() {
		defer give()
		conn, err := e.through(ctx, "tcp", to.String())
		select {
		case done <- dialled{conn, err}:
		case <-ctx.Done():
			if err == nil {
				conn.Close()
			}
		}
	}()
	select {
	case d := <-done:
		if d.err != nil {
			return nil, opError(to, d.err)
		}
		return addressed(d.conn, to), nil
	case <-ctx.Done():
		return nil, opError(to, ctx.Err())
	}
}

// opError is what net.Dialer returns: whoever asks whether nothing was sent yet looks for it.
func opError(to netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
}
