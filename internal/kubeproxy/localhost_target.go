package kubeproxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"varco.dev/internal/kubeproxy/listeners"
	"varco.dev/internal/relay"
	"varco.dev/internal/service"
)

// nodePortTarget is where the clients of one NodePort go. Its Localhost guards it.
type nodePortTarget struct {
	port   *service.Port
	pinned netip.AddrPort // for session affinity: the backend that the last client got
	until  time.Time
}

// pick returns the backend for a new client that could not reach some.
func (t *nodePortTarget) pick(failed []netip.AddrPort) (netip.AddrPort, bool) {
	usable := func(b service.Backend) bool { return !slices.Contains(failed, b.Addr) }
	stays := func(b service.Backend) bool { return b.Addr == t.pinned && usable(b) }
	keep := t.port.Affinity > 0 && time.Now().Before(t.until) && slices.ContainsFunc(t.port.Cluster, stays)
	if !keep {
		backend, ok := draw(t.port.Cluster, usable)
		if !ok {
			return backend, false
		}
		t.pinned = backend
	}
	t.until = time.Now().Add(t.port.Affinity)
	return t.pinned, true
}

// draw returns one of the usable backends at random, by weight.
func draw(backends []service.Backend, usable func(service.Backend) bool) (out netip.AddrPort, ok bool) {
	total := 0
	for _, b := range backends {
		if !usable(b) {
			continue
		}
		// The one that is kept so far stays with the probability of its share.
		weight := max(1, int(b.Weight))
		total += weight
		if rand.IntN(total) < weight {
			out, ok = b.Addr, true
		}
	}
	return out, ok
}

// pick returns the backend for a new client of a Service port.
func (l *Localhost) pick(k service.Key, failed []netip.AddrPort) (netip.AddrPort, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.targets[k]; t != nil {
		return t.pick(failed)
	}
	return netip.AddrPort{}, false
}

// keeps tells whether flows to a backend of a Service port may go on.
func (l *Localhost) keeps(k service.Key, backend netip.AddrPort) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.targets[k]
	return t != nil && has(t.port.Serving, backend)
}

// open listens at a NodePort and begins to relay.
func (l *Localhost) open(ctx context.Context, s spot) (listeners.Listener, error) {
	c := relay.Config{
		Pick: func(_ netip.AddrPort, failed []netip.AddrPort) (netip.AddrPort, bool) { return l.pick(s.key, failed) },
		Keep: func(backend netip.AddrPort) bool { return l.keeps(s.key, backend) },
		Dial: l.config.Network.DialContext, Slots: l.connections, Log: l.config.Log.With("port", s.key),
	}
	if s.key.Protocol == service.TCP {
		listener, err := l.config.Network.Listen("tcp6", s.address())
		if err != nil {
			return nil, err
		}
		l.relays.Go(func() { relay.NewTCP(listener, c).Run(ctx) })
		return nodePortSocket{listener}, nil
	}
	c.Slots = l.sessions
	packets, err := l.config.Network.ListenPacket("udp6", s.address())
	if err != nil {
		return nil, err
	}
	datagrams, ok := packets.(relay.Socket)
	if !ok {
		packets.Close()
		return nil, fmt.Errorf("a socket of type %T has no datagrams", packets)
	}
	l.relays.Go(func() { relay.NewUDP(datagrams, c).Run(ctx) })
	return nodePortSocket{packets}, nil
}

// nodePortSocket is an open one. A relay ends with its socket or with the process, never by itself.
type nodePortSocket struct{ io.Closer }

// Close implements listeners.Listener.
func (s nodePortSocket) Close() { s.Closer.Close() }

// Ended implements listeners.Listener.
func (s nodePortSocket) Ended() bool { return false }

// hostNetwork is the network of this process.
type hostNetwork struct{}

func (hostNetwork) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

func (hostNetwork) ListenPacket(network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}

func (hostNetwork) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}
