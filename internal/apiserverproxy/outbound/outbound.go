package outbound

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"varco.dev/internal/filewatch"
)

// Outbound makes connections to targets and keeps them. It is safe for concurrent use.
type Outbound struct {
	config  Config
	dial    DialFunc
	guard   *guard
	metrics *metrics

	kubelets, backends *keyring

	mu       sync.RWMutex // guards profiles
	profiles map[Profile]*peer
	asked    atomic.Int64 // how often a peer was asked for
}

// New reads the credential files and makes no connection.
func New(config Config) (*Outbound, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	return guarded(config, nil)
}

// guarded is New with addresses that the guard lets pass; nil: none.
func guarded(config Config, exempt func(netip.AddrPort) bool) (*Outbound, error) {
	o := &Outbound{config: config, metrics: newMetrics(), profiles: map[Profile]*peer{}}
	o.guard = &guard{deny: config.Deny, own: config.Own, metrics: o.metrics, log: config.Log, exempt: exempt}
	o.dial = dialer(&o.config, o.guard)
	k := config.Kubelet
	var err error
	if o.kubelets, err = newKeyring("kubelets", files{k.CertFile, k.KeyFile, k.CAFile, k.TokenFile}); err != nil {
		return nil, fmt.Errorf("read the credentials for kubelets: %w", err)
	}
	if o.backends, err = newKeyring("targets", files{config.ClientCertFile, config.ClientKeyFile, config.CAFile, ""}); err != nil {
		return nil, fmt.Errorf("read the credentials for targets: %w", err)
	}
	return o, nil
}

// isOwnPort says whether an API server, or this process, serves on a port. Nobody else's kubelet does: whoever can write the
// status of a node could have the credentials for kubelets sent to an API server, at an address of it that nobody has told.
func (o *Outbound) isOwnPort(port string) bool {
	return o.config.Own != nil && slices.ContainsFunc(o.config.Own(), func(own netip.AddrPort) bool {
		return strconv.Itoa(int(own.Port())) == port
	})
}

// Collector returns what is counted: varco_apiserver_proxy_dials_total by result, and
// varco_apiserver_proxy_refused_addresses_total by Reason.
func (o *Outbound) Collector() prometheus.Collector { return o.metrics }

// RoundTripper returns a transport for requests that want no upgrade. Equal profiles share connections. It follows no
// redirects. The URL's scheme is that of the profile, whatever the request says; h2c is HTTP/2 without TLS. Requests to
// https whose Content-Type is that of gRPC go over HTTP/2 if the target speaks it, all others over HTTP/1.1, unless the
// target does not. An unusable profile shows with the first request.
func (o *Outbound) RoundTripper(p Profile) http.RoundTripper { return (*ordinary)(o.peer(p)) }

// Upgrade returns a transport for requests that want an upgrade, always over HTTP/1.1 and a connection of their own. The
// body of an answer of code 101 is an io.ReadWriteCloser.
func (o *Outbound) Upgrade(p Profile) http.RoundTripper { return (*upgrade)(o.peer(p)) }

// Run follows the credential files until the context ends, and closes the connections that nobody uses then. New
// connections use new credentials; connections that are in use stay, and are closed as soon as they are not (those of
// HTTP/2 90 s later).
func (o *Outbound) Run(ctx context.Context) error {
	defer o.closeIdle()
	type prints struct{ kubelets, backends [sha256.Size]byte }
	look := func() prints { return prints{o.kubelets.files.print(), o.backends.files.print()} }
	return filewatch.Follow(ctx, prints{o.kubelets.print, o.backends.print}, look, func(p prints) {
		o.follow(o.kubelets, p.kubelets)
		o.follow(o.backends, p.backends)
	})
}

// follow takes over what the files hold now. What cannot be used is left.
func (o *Outbound) follow(k *keyring, print [sha256.Size]byte) {
	if print == k.print {
		return
	}
	k.print = print
	c, err := k.files.load()
	if err != nil {
		o.config.Log.Warn("the credential files have changed and cannot be used; what they held before stays in use", "for", k.name, "error", err)
		return
	}
	k.now.Store(c)
	o.config.Log.Info("the credential files have changed", "for", k.name)
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, each := range o.profiles {
		if each.keyring() == k {
			each.renew()
		}
	}
}

func (o *Outbound) closeIdle() {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, each := range o.profiles {
		each.closeIdle()
	}
}
