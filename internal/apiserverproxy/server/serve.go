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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"

	"varco.dev/internal/filewatch"
)

const (
	idleConnection = 90 * time.Second // upstream's
	headerTimeout  = 32 * time.Second // upstream's
	maxHeaderBytes = 1 << 20          // upstream's
	maxStreams     = 100              // upstream's: of a client's connection of HTTP/2
	streamBuffer   = 256 << 10        // upstream's: what a client may send ahead in one of them
	maxAhead       = 1 << 30          // the same in all of a connection's, however many there may be
	cutTime        = time.Second      // for telling clients that their requests were cut
)

// server is what Front and Aggregated have in common: HTTPS with the options' certificates, and a chain that clients come
// through.
type server struct {
	options  *Options
	log      *slog.Logger
	trust    *trust
	reviewer *reviewer
	pairs    *pairs
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
	return &server{options: o, log: log, reviewer: r, trust: newTrust(o.Authentication, r.authn, log), pairs: &pairs{options: o.Serving}}, nil
}

// chain prepares what requests for the proxy go through.
func (s *server) chain() (*chain, error) {
	c := &chain{infos: newInfos(), codecs: newCodecs(), trust: s.trust}
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
func (s *server) ConnContext() func(context.Context, net.Conn) context.Context { return remember }

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

// every does something once in a period until the context ends; then it returns nil.
func every(ctx context.Context, period time.Duration, do func(context.Context)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			do(ctx)
		}
	}
}

// follow takes over files that have changed.
func (s *server) follow(ctx context.Context, f files) error {
	names := append(f.names, s.options.Authentication.ClientCert.ClientCA, s.options.Authentication.RequestHeader.ClientCAFile)
	look := func() string { return digest(names) }
	return filewatch.Follow(ctx, look(), look, func(string) {
		if err := f.load(); err != nil {
			s.log.Warn("certificates cannot be read again: the last good ones stay in use", "error", err)
		} else {
			s.log.Info("certificates were read again")
		}
		s.trust.reload(ctx)
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
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(!s.options.Serving.DisableHTTP2Serving)
	protocols.SetUnencryptedHTTP2(true) // on the loopback port; TLS settles it by ALPN
	streams := s.options.Serving.HTTP2MaxStreamsPerConnection
	if streams <= 0 {
		streams = maxStreams
	}
	return &http.Server{
		Handler: s.handler, Protocols: protocols, ConnContext: remember,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: streams, MaxReadFrameSize: streamBuffer,
			MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: min(streams*streamBuffer, maxAhead),
		},
		IdleTimeout: idleConnection, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(quiet{s.log.Handler()}, slog.LevelWarn),
	}
}

// quiet writes handshakes that fail, of which port scanners cause many, at debug.
type quiet struct{ slog.Handler }

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, record slog.Record) error {
	if strings.HasPrefix(record.Message, "http: TLS handshake error") {
		record.Level = slog.LevelDebug
	}
	if !q.Enabled(ctx, record.Level) {
		return nil
	}
	return q.Handler.Handle(ctx, record)
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
	var open sync.WaitGroup
	for _, drain := range s.drains {
		open.Go(func() {
			if err := drain(ctx); err != nil {
				s.log.Warn("streams were cut", "error", err)
			}
		})
	}
	last, cancel := context.WithTimeout(context.Background(), s.options.DrainTimeout+cutTime)
	defer cancel()
	if server.Shutdown(last) != nil {
		server.Close() // some client does not read what it is told
	}
	open.Wait()
}

// drainsOf leaves out what there is not.
func drainsOf(all ...func(context.Context) error) []func(context.Context) error {
	return slices.DeleteFunc(all, func(drain func(context.Context) error) bool { return drain == nil })
}
