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
	front  *pass
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
	from, err := newOrigin(c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	f := &Front{server: s, config: c, front: &pass{
		log: c.Log, origin: from, proxy: passed, trust: s.trust, infos: chain.infos, unknown: stranger(chain),
		certFile: c.Options.ProxyClientCertFile, keyFile: c.Options.ProxyClientKeyFile,
	}}
	f.front.swap(&passLanes{})
	f.handler = counted(c.Log, c.Access, f.route(chain))
	return f, nil
}

// route returns the handler of all requests.
func (f *Front) route(c *chain) http.Handler {
	proxy := c.build(checked("", f.trust.unhopped(f.config.Proxy(http.HandlerFunc(f.again), c.authz))), false)
	var gone http.Handler
	if f.config.IsGone != nil {
		gone = c.build(f.config.Gone, true)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case gone != nil && f.config.IsGone(r):
			gone.ServeHTTP(w, r)
		case f.config.IsProxy(r):
			proxy.ServeHTTP(w, keep(r))
		default:
			f.front.ServeHTTP(w, r)
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
	load := func() error { return errors.Join(f.pairs.load(), f.front.load()) }
	if err := load(); err != nil {
		return err
	}
	defer f.front.swap(&passLanes{})
	if err := f.trust.start(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	listeners, err := f.listeners(ctx)
	if err != nil {
		return err
	}
	f.log.Info("serving HTTPS in front of the API server", "address", listeners[0].Addr(), "apiServer", f.config.Kubeconfig.Host)
	names := append(f.pairs.files(), f.front.certFile, f.front.keyFile, f.front.origin.config.CAFile)
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
