package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiserverlb/https"
	"varco.dev/internal/backend"
	"varco.dev/internal/backend/health"
	"varco.dev/internal/httpproxy/identity"
	"varco.dev/internal/httpproxy/vouch"
)

// Mounted is a handler of some requests, in front of those that go to API servers.
type Mounted interface {
	// Handler returns the handler of all requests; those that are not its own go to next. It is called once.
	Handler(next http.Handler) http.Handler
	// Run does what the handler needs until the context ends, and returns nil then. It blocks.
	Run(ctx context.Context) error
	// Drain ends what the handler has open within the context. It may be repeated.
	Drain(ctx context.Context) error
}

// usesHTTPS says whether there is a listener of mode https.
func usesHTTPS(c *config.Config) bool {
	return slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return l.Mode == config.ModeHTTPS })
}

// newHTTPS makes the server of listeners of mode https.
func (lb *LB) newHTTPS(c *config.Config) (*https.Server, error) {
	h := c.HTTPS
	var client kubernetes.Interface
	var own *rest.Config
	if h.Kubeconfig != "" {
		var err error
		if own, err = lb.ownConfig(h.Kubeconfig); err != nil {
			return nil, fmt.Errorf("https.kubeconfig: %w", err)
		}
		if client, err = kubernetes.NewForConfig(own); err != nil {
			return nil, fmt.Errorf("https.kubeconfig: %w", err)
		}
	}
	r := h.RequestHeader
	headers := identity.Headers{Users: r.UsernameHeaders, UIDs: r.UIDHeaders, Groups: r.GroupHeaders, ExtraPrefixes: r.ExtraHeaderPrefixes}
	trust := vouch.NewTrust(vouch.TrustConfig{
		ClientCAFile: h.ClientCAFile, ProxyCAFile: r.CAFile, AllowedNames: r.AllowedNames, Headers: headers, Otherwise: headers,
		Client: client, Words: https.Words(), Log: lb.log,
	})
	s := https.Config{
		Balancer: requests{lb.balancer}, Trust: trust, Log: lb.log, Access: lb.config.Access,
		FrontProxyCertFile: h.FrontProxyCertFile, FrontProxyKeyFile: h.FrontProxyKeyFile,
		Backends: https.Backends{
			CAFile: h.CAFile, ServerName: h.ServerName, Insecure: c.Health.InsecureSkipVerify,
			ConnectTimeout: c.Timeouts.Connect.Duration, KeepAlive: c.Timeouts.KeepAlive.Duration, HandshakeTimeout: h.HandshakeTimeout.Duration,
		},
		GoawayChance: h.GoawayChance, MaxUpgrades: h.MaxUpgrades, HeaderTimeout: h.HeaderTimeout.Duration, UserTimeout: c.Timeouts.User.Duration, Limits: lb.requestLimits(c),
	}
	if lb.config.Mount != nil {
		if own == nil {
			return nil, errors.New("https.kubeconfig is missing: the account that asks the API server about clients and objects, for what is served here")
		}
		mounted, err := lb.config.Mount(trust, own)
		if err != nil {
			return nil, err
		}
		lb.mounted, s.Mount, s.Drain = mounted, mounted.Handler, mounted.Drain
	}
	return https.New(s)
}

// requestLimits are those of mode https: the same, but for themselves.
func (lb *LB) requestLimits(c *config.Config) https.Limits {
	return https.Limits{Connections: int(lb.limit.Load()), PerSource: c.Limits.PerSource}
}

// requests is the balancer of requests.
type requests struct{ *balancer }

// Pick implements https.Balancer.
func (b requests) Pick(_ *http.Request, tried []netip.AddrPort) (https.Attempt, error) {
	lease, err := b.requests.Pick(backend.Want{Avoid: tried})
	if err != nil {
		return https.Attempt{}, err
	}
	return https.Attempt{Backend: lease.Addr(), Report: func(e https.Event) { b.note(lease, e) }}, nil
}

// Others implements https.Balancer.
func (b requests) Others(tried []netip.AddrPort) bool { return b.requests.Others(tried) }

// note tells the pool and the checks what a request has met. That an answer took long says nothing of its backend:
// lists take longer than leases.
func (b requests) note(lease backend.Lease, e https.Event) {
	switch e {
	case https.Answered:
		lease.Answered(0)
	case https.Refused:
		b.failed(lease, backend.Unreachable, health.Refused)
	case https.Unreachable:
		b.failed(lease, backend.Unreachable, health.Unreachable)
	case https.Silent:
		b.failed(lease, backend.Unreachable, health.Hung)
	case https.Untrusted:
		lease.Failed(backend.Unreachable)
	case https.Broken:
		b.failed(lease, backend.Broken, health.Broken)
	case https.Ended:
		lease.Done()
	}
}
