package apiserverlb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/backend"
	"varco.dev/internal/backend/health"
	"varco.dev/internal/relay/loop"
	"varco.dev/internal/relay/proxyheader"
)

// credentials are how API servers are recognised, and what they are shown, by the balancer's own requests.
func (lb *LB) credentials(h config.Health) *health.Credentials {
	return health.NewCredentials(health.Files{
		CAFile: h.CAFile, CertFile: h.CertFile, KeyFile: h.KeyFile, TokenFile: h.TokenFile,
		ServerName: h.ServerName, InsecureSkipVerify: h.InsecureSkipVerify,
	}, lb.log)
}

// dial connects to a listener as a client would, through all that clients come through.
func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	to := reachable(addrOf(l.keep))
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, fmt.Errorf("connect to the own listener %s: %w", l.config.Name, err)
	}
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	from, _ := l.config.ProxyProtocol.Prefixes() // was valid when it was opened
	if slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(local.Addr().Unmap().WithZone("")) }) {
		if _, err := conn.Write(proxyheader.Append(nil, local, to)); err != nil {
			return nil, errors.Join(fmt.Errorf("write the PROXY header to the own listener %s: %w", l.config.Name, err), conn.Close())
		}
	}
	return conn, nil
}

// first returns the listener for requests of our own, one of mode tcp if there is any; nil: none is open.
func (ls *listeners) first() (best *listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(ls.open)) {
		if l := ls.open[name]; best == nil || best.config.Mode == config.ModeHTTPS && l.config.Mode != config.ModeHTTPS {
			best = l
		}
	}
	return best
}

// reachable returns where a listener at all addresses can be reached from here.
func reachable(at netip.AddrPort) netip.AddrPort {
	switch {
	case !at.Addr().IsUnspecified():
		return at
	case at.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
}

// handshake makes a connection one of TLS to whichever backend it leads to: its certificate is verified as always, but for
// the address, which only the relay knows.
func handshake(ctx context.Context, conn net.Conn, by *health.Credentials) (net.Conn, error) {
	c, err := by.TLS(ctx)
	if err == nil {
		c = c.Clone()
		if c.ServerName == "" && !c.InsecureSkipVerify {
			c.InsecureSkipVerify, c.VerifyConnection = true, chained(c.RootCAs)
		}
		secure := tls.Client(conn, c)
		if err = secure.HandshakeContext(ctx); err == nil {
			return secure, nil
		}
	}
	return nil, errors.Join(err, conn.Close())
}

// chained verifies a certificate without a name.
func chained(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			o.Intermediates.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(o)
		return err
	}
}

// dialAPI connects to an API server: through a listener of mode tcp, as clients do, or else straight to a backend, since TLS would
// end here.
func (lb *LB) dialAPI(ctx context.Context) (net.Conn, error) {
	if l := lb.listeners.first(); l != nil && l.config.Mode != config.ModeHTTPS {
		return l.dial(ctx)
	}
	var tried []netip.AddrPort
	var errs error
	for range loop.DefaultTries {
		lease, err := lb.balancer.requests.Pick(backend.Want{Avoid: tried})
		if err != nil {
			return nil, errors.Join(errs, err)
		}
		tried = append(tried, lease.Addr())
		conn, err := (&net.Dialer{Timeout: loop.DefaultConnect}).DialContext(ctx, "tcp", lease.Host())
		if err != nil {
			lease.Failed(backend.Unreachable)
		}
		lease.Done()
		if err == nil {
			return conn, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}
