package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"

	"varco.dev/internal/filewatch"
	"varco.dev/internal/httpproxy/vouch"
)

// server is what Front and Aggregated have in common: HTTPS with the options' certificates, and a chain that clients come
// through.
type server struct {
	options  *Options
	log      *slog.Logger
	trust    *vouch.Trust
	reviewer *reviewer
	pairs    *vouch.Pairs
	backend  auditBackend
	handler  http.Handler
	drains   []func(context.Context) error // each ends what it has open
	serving  atomic.Bool
}

func newServer(o *Options, kubeconfig *rest.Config, log *slog.Logger) (*server, error) {
	r, err := newReviewer(o, kubeconfig, log)
	if err != nil {
		return nil, err
	}
	return &server{options: o, log: log, reviewer: r, trust: newTrust(o.Authentication, r.authn, log), pairs: newPairs(o.Serving)}, nil
}

// chain prepares what requests for the proxy go through.
func (s *server) chain() (*chain, error) {
	c := &chain{infos: vouch.NewInfos(), codecs: newCodecs(), trust: s.trust}
	var err error
	if c.authn, err = s.reviewer.authenticator(s.options, s.trust); err != nil {
		return nil, err
	}
	if c.authz, err = s.reviewer.authorizer(s.options); err != nil {
		return nil, err
	}
	var audited genericserver.Config
	if err := s.options.Audit.ApplyTo(&audited); err != nil {
		return nil, fmt.Errorf("prepare the audit log: %w", err)
	}
	c.backend, c.policy = audited.AuditBackend, audited.AuditPolicyRuleEvaluator
	s.backend.backend = audited.AuditBackend
	return c, nil
}

// Handler returns the handler of all requests, for servers of other kinds. Run must run nevertheless.
func (s *server) Handler() http.Handler { return s.handler }

// ConnContext is for the http.Server that Handler is given to: with it, a certificate is verified once in a while and not for each
// request.
func (s *server) ConnContext() func(context.Context, net.Conn) context.Context { return vouch.Remember }

// Ready returns why nothing can be served, or nil. It does not block.
func (s *server) Ready() error {
	if !s.serving.Load() {
		return errors.New("not serving: it has not started yet, or is ending")
	}
	return s.reviewer.wrong()
}

// files are those that a server reads, and what to do when they change.
type files struct {
	names []string
	load  func() error
}

// run serves on the listeners until the context ends, and follows everything that it goes by meanwhile.
func (s *server) run(ctx context.Context, f files, listeners ...net.Listener) error {
	if err := s.backend.start(); err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return err
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, working := errgroup.WithContext(working)
	group.Go(func() error { return s.trust.Run(working) })
	group.Go(func() error { return s.reviewer.Run(working) })
	group.Go(func() error { return s.follow(working, f) })
	group.Go(func() error {
		defer stop()
		defer s.backend.stop()
		return s.serve(ctx, listeners...)
	})
	return group.Wait()
}

// follow takes over files that have changed.
func (s *server) follow(ctx context.Context, f files) error {
	names := append(f.names, s.trust.Files()...)
	look := func() string { return vouch.Digest(names) }
	return filewatch.Follow(ctx, look(), look, func(string) {
		if err := f.load(); err != nil {
			s.log.Warn("certificates cannot be read again: the last good ones stay in use", "error", err)
		} else {
			s.log.Info("certificates were read again")
		}
		s.trust.Reload(ctx)
	})
}

// secure opens the port for HTTPS.
func (s *server) secure() (net.Listener, error) {
	config, err := s.tls()
	if err != nil {
		return nil, err
	}
	l, err := s.listen()
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, config), nil
}

func (s *server) http() *http.Server {
	return vouch.HTTP(vouch.HTTPConfig{
		Handler: s.handler, Streams: s.options.Serving.HTTP2MaxStreamsPerConnection, NoHTTP2: s.options.Serving.DisableHTTP2Serving, Log: s.log,
	})
}

// serve answers on the listeners until the context ends, and drains then. It closes the listeners.
func (s *server) serve(ctx context.Context, listeners ...net.Listener) error {
	server := s.http()
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- server.Serve(l) }()
	}
	var err error
	left := len(listeners)
	s.serving.Store(true)
	select {
	case err = <-failed:
		left--
		s.serving.Store(false)
		server.Close()
	case <-ctx.Done():
		s.serving.Store(false) // first of all: whoever asks sends no more clients
		s.drain(server)
	}
	for range left {
		<-failed
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// drain lets requests end: watches now, other streams within the time allowed.
func (s *server) drain(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), s.options.DrainTimeout)
	defer cancel()
	vouch.Drain(ctx, server, s.log, s.drains...)
}

// drainsOf leaves out what there is not.
func drainsOf(all ...func(context.Context) error) []func(context.Context) error {
	return slices.DeleteFunc(all, func(drain func(context.Context) error) bool { return drain == nil })
}
