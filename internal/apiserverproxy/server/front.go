package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/httpproxy/vouch"
	"varco.dev/internal/observe"
)

// DefaultMaxUpgrades is how many upgraded connections to the API server a Front passes on at a time.
const DefaultMaxUpgrades = 16384

// FrontConfig is what NewFront wants to know.
type FrontConfig struct {
	Options *FrontOptions // required; validated before
	// Kubeconfig is the API server, and the account that asks it about clients: it needs the ClusterRole
	// system:auth-delegator and, unless flags say what it holds, the Role kube-system/extension-apiserver-authentication-reader.
	// Clients never get anything done with that account. Required.
	Kubeconfig *rest.Config
	// IsProxy says which requests are for Proxy. It must not block. Required.
	IsProxy func(*http.Request) bool
	// Proxy makes the handler of those requests. They have been authenticated, authorized by upstream's attributes, and
	// audited; their contexts have RequestInfo and user as in kube-apiserver, and credentials and identity headers are gone.
	// What comes from another trusted front proxy has its client's address and host. What the handler hands to next goes to
	// the API server with the headers that the client had sent. The authorizer is for further questions, and has the same
	// cache. Required.
	Proxy func(next http.Handler, authz authorizer.Authorizer) http.Handler
	// IsGone says which requests are for Gone, before IsProxy is asked: paths that no server answers any more. Optional.
	IsGone func(*http.Request) bool
	// Gone serves requests that have been authenticated but not authorized. Required with IsGone.
	Gone http.Handler
	// Drain ends what Proxy's handler has open when the server ends, within the context: upgraded connections, of which
	// net/http knows nothing. It may be called when there was no request. Optional.
	Drain func(context.Context) error
	// MaxUpgrades is how many upgraded connections are passed on at a time. Default: DefaultMaxUpgrades.
	MaxUpgrades int
	// Access counts requests and logs them at verbosity 3. Optional.
	Access *observe.AccessMetrics
	Log    *slog.Logger // required
}

// Front is an HTTPS server in front of an API server: it serves the proxy paths itself and passes all else on.
type Front struct {
	*server
	config FrontConfig
	front  *vouch.Pass
}

// NewFront builds a Front. It opens no connection and no port; Run does.
func NewFront(c FrontConfig) (*Front, error) {
	s, err := newServer(&c.Options.Options, c.Kubeconfig, c.Log)
	if err != nil {
		return nil, err
	}
	if c.MaxUpgrades == 0 {
		c.MaxUpgrades = DefaultMaxUpgrades
	}
	passed := httpproxy.New(httpproxy.Config{Log: c.Log, MaxUpgrades: c.MaxUpgrades})
	s.drains = drainsOf(passed.Drain, c.Drain)
	chain, err := s.chain()
	if err != nil {
		return nil, err
	}
	from, err := vouch.NewOrigin(c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	f := &Front{server: s, config: c, front: vouch.NewPass(vouch.PassConfig{
		Log: c.Log, Origin: from, Proxy: passed, Trust: s.trust, Unknown: stranger(chain), Words: vouch.Flags(),
		CertFile: c.Options.ProxyClientCertFile, KeyFile: c.Options.ProxyClientKeyFile,
	})}
	f.handler = counted(c.Log, c.Access, routes{c.IsProxy, c.Proxy, c.IsGone, c.Gone}.build(chain, f.front))
	return f, nil
}

// routes are the requests that are served here, and by whom; see FrontConfig.
type routes struct {
	isProxy func(*http.Request) bool
	proxy   func(next http.Handler, authz authorizer.Authorizer) http.Handler
	isGone  func(*http.Request) bool
	gone    http.Handler
}

// build returns the handler of all requests, which hands on to next what is not served here.
func (r routes) build(c *chain, next http.Handler) http.Handler {
	proxy := c.build(checked("", unhopped(c.trust, r.proxy(again(next), c.authz))), false)
	var gone http.Handler
	if r.isGone != nil {
		gone = c.build(r.gone, true)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case gone != nil && r.isGone(q):
			gone.ServeHTTP(w, q)
		case r.isProxy(q):
			proxy.ServeHTTP(w, keep(q))
		default:
			next.ServeHTTP(w, q)
		}
	})
}

// counted has requests counted and logged.
func counted(log *slog.Logger, metrics *observe.AccessMetrics, h http.Handler) http.Handler {
	if metrics == nil {
		return h
	}
	return observe.Access(log, metrics, h)
}

// Run serves until the context ends, and then gives what is open its time to end. It returns nil then, or why it could not
// serve. It waits for an API server that is away when it starts.
func (f *Front) Run(ctx context.Context) error {
	load := func() error { return errors.Join(f.pairs.Load(), f.front.Load()) }
	if err := load(); err != nil {
		return err
	}
	defer f.front.Unload()
	if err := f.trust.Start(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	listeners, err := f.listeners(ctx)
	if err != nil {
		return err
	}
	f.log.Info("serving HTTPS in front of the API server", "address", listeners[0].Addr(), "apiServer", f.config.Kubeconfig.Host)
	names := append(f.pairs.Files(), f.front.Files()...)
	return f.run(ctx, files{names, load}, listeners...)
}

// listeners opens the ports.
func (f *Front) listeners(ctx context.Context) ([]net.Listener, error) {
	secure, err := f.secure()
	if err != nil {
		return nil, err
	}
	if f.config.Options.InsecureLoopbackPort == 0 {
		return []net.Listener{secure}, nil
	}
	plain, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.config.Options.InsecureLoopbackPort)))
	if err != nil {
		secure.Close()
		return nil, fmt.Errorf("--insecure-loopback-port: %w", err)
	}
	return []net.Listener{secure, plain}, nil
}
