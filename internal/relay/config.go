package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Bounds of reaching a backend.
const (
	dialTimeout = 5 * time.Second // as kube-proxy's proxy for NodePorts at localhost
	maxTries    = 3               // backends for one client
)

var errNoBackend = errors.New("there is no backend")

// Config is what TCP and UDP want to know.
type Config struct {
	// Pick returns the backend for a new client, given those that could not be reached for it just now; false: there is
	// none. It must not block, and is called concurrently. Required.
	Pick func(client netip.AddrPort, failed []netip.AddrPort) (netip.AddrPort, bool)
	// Keep tells whether a UDP session with a backend may go on. It is asked for each datagram of the client; a session
	// that may not gets another backend. It must not block, and is called concurrently. Optional.
	Keep func(backend netip.AddrPort) bool
	// Dial is net.Dialer.DialContext, or another. TCP is moved by splice(2) if it returns *net.TCPConn. Optional.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Slots bound the connections or sessions. Relays may share them. Required.
	Slots *Slots
	// Idle is for how long a UDP session without datagrams is kept. Default: 2 minutes, the least that RFC 4787, REQ-5,
	// wants of network address translation.
	Idle time.Duration
	Log  *slog.Logger // required
}

func (c Config) withDefaults() Config {
	if c.Keep == nil {
		c.Keep = func(netip.AddrPort) bool { return true }
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Idle == 0 {
		c.Idle = defaultIdle
	}
	return c
}

// connect returns a connection to the first backend that can be reached.
func (c Config) connect(ctx context.Context, network string, client netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	var failed []netip.AddrPort
	err := errNoBackend
	for range maxTries {
		backend, ok := c.Pick(client, failed)
		if !ok {
			break
		}
		var conn net.Conn
		if conn, err = c.dial(ctx, network, backend); err == nil {
			return conn, backend, nil
		}
		if ctx.Err() != nil {
			break
		}
		failed = append(failed, backend)
	}
	return nil, netip.AddrPort{}, fmt.Errorf("connect to a backend, of which %d failed: %w", len(failed), err)
}

func (c Config) dial(ctx context.Context, network string, backend netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return c.Dial(ctx, network, backend.String())
}
