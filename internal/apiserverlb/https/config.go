package https

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"varco.dev/internal/httpproxy/identity"
	"varco.dev/internal/httpproxy/vouch"
	"varco.dev/internal/observe"
)

// Defaults of Config.
const (
	DefaultConnections      = 20000
	DefaultMaxUpgrades      = 16384
	DefaultConnectTimeout   = 2 * time.Second  // a SYN is sent again after 1 s
	DefaultHandshakeTimeout = 3 * time.Second  // of a backend that works, at a busy time
	DefaultHeaderTimeout    = 32 * time.Second // kube-apiserver's
	DefaultUserTimeout      = 5 * time.Second
	DefaultGoawayChance     = 0.001 // what kube-apiserver's own flag suggests to begin with
	// MostGoawayChance is kube-apiserver's bound for --goaway-chance: beyond, connections cost more than their balance is worth.
	MostGoawayChance = 0.02
)

// Config is what New wants to know.
type Config struct {
	Balancer Balancer     // required
	Trust    *vouch.Trust // which client certificates count; the server starts and runs it; required
	Backends Backends
	// FrontProxyCertFile and FrontProxyKeyFile are as in vouch.PassConfig: without, client certificates are answered 403.
	FrontProxyCertFile, FrontProxyKeyFile string
	// Mount puts a handler in front of what is sent to backends; it is called once, by New. Optional.
	Mount func(next http.Handler) http.Handler
	// Drain ends what that handler has open, within the context. Optional.
	Drain func(context.Context) error
	// GoawayChance is how many of the requests over HTTP/2 have their client told to open a new connection (GOAWAY), which may
	// lead to another balancer: 0 to MostGoawayChance. 0: none.
	GoawayChance float64
	// MaxUpgrades is how many upgraded connections there may be at a time. Default: DefaultMaxUpgrades; below 0: none.
	MaxUpgrades int
	// HeaderTimeout is how long a client may take for the PROXY protocol, for its handshake and for a request's header. Default:
	// DefaultHeaderTimeout.
	HeaderTimeout time.Duration
	// UserTimeout is how long a client or a backend may leave bytes unacknowledged before it counts as gone. Default:
	// DefaultUserTimeout.
	UserTimeout time.Duration
	Limits      Limits
	Access      *observe.AccessMetrics // counts requests, and logs them at verbosity 3; optional
	Log         *slog.Logger           // required
}

// Backends says how API servers are reached and known.
type Backends struct {
	CAFile     string // PEM; empty: the machine's
	ServerName string // in their certificates; empty: their address
	Insecure   bool   // believe any certificate
	// Dial makes a connection, which takes as long as ConnectTimeout at most. Default: TCP with probes once a client's side
	// has been silent for KeepAlive, and given up after three that got no answer, a second apart.
	Dial             func(ctx context.Context, network, addr string) (net.Conn, error)
	ConnectTimeout   time.Duration // default: DefaultConnectTimeout
	KeepAlive        time.Duration // default: 3 s
	HandshakeTimeout time.Duration // default: DefaultHandshakeTimeout
}

// Limits bound what is served at a time; connections beyond are reset at once.
type Limits struct {
	Connections int // default: DefaultConnections
	PerSource   int // of one IPv4 address or one IPv6 /64; 0: no limit
}

// Listener is where clients connect to.
type Listener struct {
	Name              string           // tells it from others
	Net               *net.TCPListener // taken over: the server closes it
	CertFile, KeyFile string           // what it shows; followed
	// ProxyFrom are networks whose connections must begin with a header of the PROXY protocol, of version 1 or 2. Others must not.
	ProxyFrom []netip.Prefix
}

// Balancer chooses backends. It is called by many goroutines at once and must not block.
type Balancer interface {
	// Pick returns a backend for a request that is none of those in tried, or an error if there is none. Its Report must be told
	// Ended at some time.
	Pick(r *http.Request, tried []netip.AddrPort) (Attempt, error)
	// Others tells whether Pick would find a backend that is known to work, and to stay, besides those.
	Others(tried []netip.AddrPort) bool
}

// Attempt is a request on its way to a backend.
type Attempt struct {
	Backend netip.AddrPort
	// Report gets what happens, in order; Ended is the last, and comes once. It is called by any goroutine and must not block.
	Report func(Event)
}

// Event is what happened to an attempt.
type Event uint8

// The events.
const (
	Answered    Event = iota // the header of an answer has come
	Busy                     // and it was 429: the backend turns requests away
	Refused                  // connection refused
	Unreachable              // no connection, for other reasons
	Silent                   // a connection, but no TLS handshake in time
	Untrusted                // its certificate is not to be trusted
	Broken                   // the connection ended before an answer came
	Ended                    // nothing of it is left
)

// String returns a word for logs and metrics.
func (e Event) String() string {
	return [...]string{"answered", "busy", "refused", "unreachable", "silent", "untrusted", "broken", "ended"}[e]
}

// Words are the names of settings in the configuration file.
func Words() vouch.Words {
	return vouch.Words{
		ClientCA: "https.clientCAFile", ProxyCA: "https.requestHeader.caFile", AllowedNames: "https.requestHeader.allowedNames",
		FrontProxy: "https.frontProxyCertFile", Serving: "tls.certFile and tls.keyFile of a listener", ServingNamed: "tls",
	}
}

// DefaultHeaders are those that are written if nobody says which the API servers read.
func DefaultHeaders() identity.Headers { return identity.Default() }

func (c *Config) complete() error {
	switch {
	case c.Balancer == nil || c.Trust == nil || c.Log == nil:
		return errors.New("Balancer, Trust and Log are required")
	case (c.FrontProxyCertFile == "") != (c.FrontProxyKeyFile == ""):
		return errors.New("https.frontProxyCertFile and https.frontProxyKeyFile belong together")
	case c.GoawayChance < 0 || c.GoawayChance > MostGoawayChance:
		return fmt.Errorf("https.goawayChance: %v is not between 0 and %v", c.GoawayChance, MostGoawayChance)
	}
	or(&c.MaxUpgrades, DefaultMaxUpgrades)
	or(&c.UserTimeout, DefaultUserTimeout)
	or(&c.HeaderTimeout, DefaultHeaderTimeout)
	or(&c.Limits.Connections, DefaultConnections)
	b := &c.Backends
	or(&b.ConnectTimeout, DefaultConnectTimeout)
	or(&b.HandshakeTimeout, DefaultHandshakeTimeout)
	or(&b.KeepAlive, 3*time.Second)
	if b.Dial == nil {
		b.Dial = (&net.Dialer{Timeout: b.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: b.KeepAlive, Interval: time.Second, Count: 3,
		}}).DialContext
	}
	return nil
}

// or sets what is zero.
func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}
