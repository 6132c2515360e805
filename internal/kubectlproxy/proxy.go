package kubectlproxy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/kubectlproxy/cluster"
	"varco.dev/internal/kubectlproxy/guard"
	"varco.dev/internal/kubectlproxy/origin"
	"varco.dev/internal/observe"
)

// Proxy serves the API of a kubeconfig's clusters, and their Services, on a local port.
type Proxy struct {
	config   Config
	guard    *guard.Guard
	clusters *cluster.Clusters
	origins  *origin.Origins
	pass     *httpproxy.Proxy
	routes   routes
	metrics  metrics
	started  time.Time
}

// New checks the Config; the error names the flag. It reads no kubeconfig and listens nowhere: Run does.
func New(c Config) (*Proxy, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.RequireToken {
		c.Guard.Token = rand.Text()
	}
	g, err := guard.New(c.Guard)
	if err != nil {
		return nil, err
	}
	c.Clusters.Log = c.Log
	p := &Proxy{
		config: c, guard: g, clusters: cluster.New(c.Clusters), metrics: newMetrics(c.Version), started: time.Now(),
		pass: httpproxy.New(httpproxy.Config{Log: c.Log, BodyTimeout: cmp.Or(c.BodyTimeout, -1)}),
	}
	switch {
	case !g.DeniesTunnels():
	case c.Services == origin.ModeAuto:
		c.Services = origin.ModeProxy
	case c.Services == origin.ModeTunnel:
		return nil, errors.New("--services tunnel needs pods/portforward, which --deny takes away")
	}
	p.origins = origin.New(origin.Config{Clusters: p.clusters, Proxy: p.pass, Mode: c.Services, Log: c.Log})
	p.metrics.follow(p.origins)
	p.routes = p.newRoutes()
	return p, nil
}

// Run serves until the context ends, and then gives what is open its time to end. It returns nil then, or why it could not
// serve. A kubeconfig that cannot be used is such a reason.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.clusters.Check(); err != nil {
		return err
	}
	listener, err := p.listen(ctx)
	if err != nil {
		return err
	}
	defer listener.Close()
	health, err := p.listenHealth(ctx) // before the line that programs wait for
	if err != nil {
		return err
	}
	if err := p.announce(listener.Addr()); err != nil {
		if health != nil {
			health.Close()
		}
		return err
	}
	// What serves requests goes on while they end.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, working := errgroup.WithContext(working)
	group.Go(func() error { return p.clusters.Run(working) })
	group.Go(func() error { return p.origins.Run(working) })
	if health != nil {
		group.Go(func() error { return observe.ServeOn(working, health, p.health(), maxHealthConnections) })
	}
	group.Go(func() error {
		defer stop()
		return p.serve(ctx, working, listener)
	})
	return group.Wait()
}

// announce says where the proxy serves, in a line that programs wait for; what comes after it is for people.
func (p *Proxy) announce(at net.Addr) error {
	if _, err := fmt.Fprintf(p.config.Out, "Starting to serve on %s\n", at); err != nil {
		return fmt.Errorf("say where the proxy serves: %w", err)
	}
	if page := p.page(at); page != "" {
		if _, err := fmt.Fprintf(p.config.Out, "Open %s\n", page); err != nil {
			return fmt.Errorf("say where the start page is: %w", err)
		}
	}
	return nil
}

// page is the URL to open in a browser, or none where there is nothing to see or no port to see it at.
func (p *Proxy) page(at net.Addr) string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || p.routes.page == nil && p.config.Guard.Token == "" {
		return ""
	}
	host := "localhost"
	if !tcp.IP.IsLoopback() && !tcp.IP.IsUnspecified() {
		host = tcp.IP.String()
	}
	url := p.scheme() + "://" + net.JoinHostPort(host, fmt.Sprint(tcp.Port)) + "/"
	if p.config.Guard.Token != "" {
		url += "?" + guard.TokenParameter + "=" + p.config.Guard.Token
	}
	return url
}

func (p *Proxy) scheme() string {
	if p.config.TLS.wanted() {
		return "https"
	}
	return "http"
}

// serve answers HTTP until ctx ends, and drains then. It gives up as soon as working ends, which is when another part of the
// proxy has failed.
func (p *Proxy) serve(ctx, working context.Context, listener net.Listener) error {
	server := p.server()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-working.Done():
		server.Close()
		<-failed
		return nil
	case <-ctx.Done():
	}
	p.drain(working, server)
	<-failed
	return nil
}

// server leaves answers and request bodies without a timeout of its own, since a watch lasts for hours: httpproxy bounds
// what may be bounded.
func (p *Proxy) server() *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC to a Service
	server := &http.Server{
		Handler: p.handler(), Protocols: protocols,
		ReadHeaderTimeout: p.config.HeaderTimeout, IdleTimeout: p.config.IdleTimeout, MaxHeaderBytes: p.config.MaxHeaderBytes,
		ErrorLog: slog.NewLogLogger(p.config.Log.Handler(), slog.LevelWarn), // a handler that panics, for one
	}
	if p.config.SameUser {
		server.ConnContext = identify
	}
	return server
}

// drain lets requests end: watches now, since their clients begin anew elsewhere, other streams within the time allowed.
func (p *Proxy) drain(working context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(working, p.config.DrainTimeout)
	defer cancel()
	if requests, upgrades := p.pass.Open(); requests+upgrades > 0 {
		p.config.Log.Info("ending; a second signal ends it at once", "requests", requests, "upgraded", upgrades, "at the latest after", p.config.DrainTimeout)
	}
	var passed sync.WaitGroup
	passed.Go(func() {
		if err := p.pass.Drain(ctx); err != nil {
			p.config.Log.Warn("streams were cut", "error", err)
		}
	})
	last, cancel := context.WithTimeout(working, max(p.config.DrainTimeout, 0)+cutTime)
	defer cancel()
	if server.Shutdown(last) != nil {
		server.Close() // some client does not read what it is told
	}
	passed.Wait()
}

// cutTime is for telling clients that their requests were cut.
const cutTime = time.Second

// maxHealthConnections bounds those to --metrics-address.
const maxHealthConnections = 64

// listenHealth opens the port of health and metrics; it returns nil if there is none.
func (p *Proxy) listenHealth(ctx context.Context) (net.Listener, error) {
	if p.config.MetricsAddress == "" {
		return nil, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.config.MetricsAddress)
	if err != nil {
		return nil, fmt.Errorf("--metrics-address: %w", err)
	}
	return listener, nil
}

// health is what --metrics-address serves.
func (p *Proxy) health() http.Handler {
	return observe.Pages{
		Component: "kubectl-proxy", Version: p.config.Version, Started: p.started, Metrics: p.metrics.handler(),
	}.Handler()
}
