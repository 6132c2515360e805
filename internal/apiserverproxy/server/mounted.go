package server

import (
	"context"
	"log/slog"
	"net/http"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"

	"varco.dev/internal/filewatch"
	"varco.dev/internal/httpproxy/vouch"
)

// MountedConfig is what NewMounted wants to know: what FrontConfig has, but for a server of its own.
type MountedConfig struct {
	Options    *Options                                                          // required; validated before. Serving and DrainTimeout are of no use
	Kubeconfig *rest.Config                                                      // as in FrontConfig; required
	IsProxy    func(*http.Request) bool                                          // as in FrontConfig; required
	Proxy      func(next http.Handler, authz authorizer.Authorizer) http.Handler // as in FrontConfig; required
	IsGone     func(*http.Request) bool                                          // as in FrontConfig; optional
	Gone       http.Handler                                                      // as in FrontConfig; required with IsGone
	// Trust says which client certificates count, in the place of Options.Authentication: that of the server which this is mounted
	// in, and which runs it. Optional.
	Trust *vouch.Trust
	Log   *slog.Logger // required
}

// Mounted is what a Front does with the proxy paths, for a server that passes on all else itself.
type Mounted struct {
	base   *server
	chain  *chain
	routes routes
	own    bool // the trust is
}

// NewMounted builds a Mounted. It opens no connection; Run does.
func NewMounted(c MountedConfig) (*Mounted, error) {
	s, err := newServer(c.Options, c.Kubeconfig, c.Log)
	if err != nil {
		return nil, err
	}
	if c.Trust != nil {
		s.trust = c.Trust
	}
	chain, err := s.chain()
	if err != nil {
		return nil, err
	}
	return &Mounted{base: s, chain: chain, routes: routes{c.IsProxy, c.Proxy, c.IsGone, c.Gone}, own: c.Trust == nil}, nil
}

// Handler returns a handler that serves the proxy paths and hands all else to next, and what Proxy's handler passes on, with the
// headers that the client had sent. The server's ConnContext should be vouch.Remember. It calls Proxy.
func (m *Mounted) Handler(next http.Handler) http.Handler { return m.routes.build(m.chain, next) }

// Ready returns why clients of the proxy paths cannot be judged, or nil. It does not block.
func (m *Mounted) Ready() error { return m.base.reviewer.wrong() }

// Run writes the audit log and follows what clients are judged by, until the context ends; it returns nil then. It should begin
// before the first request is served and end after the last.
func (m *Mounted) Run(ctx context.Context) error {
	s := m.base
	if err := s.backend.start(); err != nil {
		return err
	}
	defer s.backend.stop()
	if m.own {
		if err := s.trust.Start(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.reviewer.Run(ctx) })
	if m.own {
		group.Go(func() error { return s.trust.Run(ctx) })
		group.Go(func() error { return m.follow(ctx) })
	}
	return group.Wait()
}

// follow has files read again that have changed.
func (m *Mounted) follow(ctx context.Context) error {
	t := m.base.trust
	look := func() string { return vouch.Digest(t.Files()) }
	return filewatch.Follow(ctx, look(), look, func(string) { t.Reload(ctx) })
}
