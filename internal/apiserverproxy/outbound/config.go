package outbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Defaults, which are upstream's where it has the setting (k8s.io/kubernetes, pkg/controlplane: CreateProxyTransport, which
// leaves all to net/http's DefaultTransport).
const (
	DefaultDialTimeout = 30 * time.Second

	tlsTimeout      = 10 * time.Second // for the TLS handshake
	idlePool        = 90 * time.Second // for how long a connection that nobody uses is kept
	continueTimeout = time.Second      // for "100 Continue", then the body is sent anyway
	keepAlive       = 30 * time.Second // between the probes of a silent connection

	// idlePerHost is how many unused connections to one target are kept. net/http keeps 2, so that 64 clients at a time
	// dial for nearly each request.
	idlePerHost = 256
	// idleTotal is how many are kept in one transport, to all its targets.
	idleTotal = 4096

	maxProfiles   = 512     // transports that are remembered
	maxHeader     = 1 << 20 // bytes of an answer's header, as net/http's servers take of a request's
	upgradeBuffer = 1 << 10 // bytes: a handshake fits, and what waits for an answer costs little
	streamWindow  = 1 << 20 // bytes of one HTTP/2 stream that the client has not taken yet

	// maxEgressDials is how many connections through an egress proxy are being made at a time; its dialer does not always
	// end when it is told to. More wait. maxTargetDials is how many of them may be to one address: one that does not answer
	// must not keep all others waiting. Those to one that does take no time.
	maxEgressDials, maxTargetDials = 1024, 64
)

// DialFunc makes a connection: that of net.Dialer.DialContext. The context counts until it returns.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Config is what an Outbound needs. The zero value is that of a proxy that verifies nothing and has no credentials.
type Config struct {
	// Deny are addresses that are refused on top of those that always are (see Refused), at any port. A prefix of mapped
	// IPv4 addresses (::ffff:0:0/96 and below) counts as IPv4. Flag: --deny-cidr.
	Deny []netip.Prefix

	// Own returns the addresses of the API servers and of this process's listeners, which are refused at just that port.
	// An unspecified address (0.0.0.0, ::) stands for every address of this host. It is asked at each dial, at several at
	// a time, and must not block. Nil: none.
	Own func() []netip.AddrPort

	// Kubelet is how kubelets are spoken to.
	Kubelet KubeletConfig

	// CAFile is a PEM bundle that the certificates of all https targets but kubelets are verified with, unless their
	// Profile has its own. Empty: those without are not verified, as upstream does. Followed, see Outbound.Run. Flag:
	// --backend-ca-file.
	CAFile string

	// ClientCertFile and ClientKeyFile are the PEM files of a certificate that https targets other than kubelets get if
	// they ask for one. Both or none. Followed. Flags: --backend-client-certificate, --backend-client-key.
	ClientCertFile, ClientKeyFile string

	// Egress makes the connections instead of a net.Dialer, such as konnectivity's; see package egress. It gets the
	// network "tcp" and an IP address with a port that was looked at; names are resolved before. Its context ends when it
	// has returned. Nil: none. Flag: --egress-selector-config-file.
	Egress DialFunc

	// Resolver resolves the names of nodes. Nil: the system's.
	Resolver *net.Resolver

	// DialTimeout bounds how long a connection may take to be made, the name's resolution included. Default: 30 s. Flag:
	// --target-connect-timeout.
	DialTimeout time.Duration

	// HeaderTimeout bounds how long an answer's header may take after the request was sent. 0: unbounded, as upstream.
	// Flag: --target-header-timeout.
	HeaderTimeout time.Duration

	// IdleTimeout closes a connection that had no byte in either direction for so long, even when it is in use. 0: never,
	// as upstream. HTTP/2 connections count as one, whatever streams they have. Flag: --target-idle-timeout.
	IdleTimeout time.Duration

	// Log gets refusals (debug) and what becomes of credential files (info, warn). Nil: none.
	Log *slog.Logger
}

// KubeletConfig is the kube-apiserver's side of the kubelet's authentication: flags --kubelet-client-certificate,
// --kubelet-client-key and --kubelet-certificate-authority of kube-apiserver. All files are followed.
type KubeletConfig struct {
	// CertFile and KeyFile are the PEM files of the client certificate. Both or none.
	CertFile, KeyFile string

	// CAFile is the PEM bundle that the kubelets' certificates are verified with. Empty: they are not verified, as
	// upstream.
	CAFile string

	// TokenFile holds a bearer token, sent if there is no other Authorization; flag: --kubelet-token-file. It needs
	// CAFile: an unverified peer could take the token and use it.
	TokenFile string
}

// complete fills in defaults and finds contradictions.
func (c *Config) complete() error {
	c.DialTimeout = cmp.Or(c.DialTimeout, DefaultDialTimeout)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.DialTimeout < 0 || c.HeaderTimeout < 0 || c.IdleTimeout < 0 {
		return errors.New("check the timeouts: one is negative")
	}
	if (c.ClientCertFile == "") != (c.ClientKeyFile == "") || (c.Kubelet.CertFile == "") != (c.Kubelet.KeyFile == "") {
		return errors.New("check the client certificates: a certificate needs a key, and a key a certificate")
	}
	if c.Kubelet.TokenFile != "" && c.Kubelet.CAFile == "" {
		return errors.New("check the kubelet's token: it needs a certificate authority, or anybody could be sent it")
	}
	deny := make([]netip.Prefix, len(c.Deny))
	for i, p := range c.Deny {
		if !p.IsValid() {
			return fmt.Errorf("check the denied addresses: number %d is not a prefix", i+1)
		}
		deny[i] = plain(p)
	}
	c.Deny = deny
	return nil
}

// plain returns a prefix in the form that addresses are compared in.
func plain(p netip.Prefix) netip.Prefix {
	const mapped = 96 // bits of ::ffff:0:0/96
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p
}
