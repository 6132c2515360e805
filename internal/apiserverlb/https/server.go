package https

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"varco.dev/internal/filewatch"
	"varco.dev/internal/httpproxy"
	"varco.dev/internal/httpproxy/vouch"
	"varco.dev/internal/observe"
)

const (
	// pingIdle is how long a client's connection of HTTP/2 may be silent before it is asked whether it lives: client-go's. What
	// it holds would else be held for as long as TCP tries to send to it, which is a quarter of an hour.
	pingIdle = 30 * time.Second
	// anyHost stands for the API server that will be chosen.
	anyHost = "https://kubernetes"
)

// Server serves the clients of any number of listeners. It is safe for concurrent use.
type Server struct {
	config  Config
	log     *slog.Logger
	flights *flights
	spread  *spread
	proxy   *httpproxy.Proxy
	pass    *vouch.Pass
	http    *http.Server
	crowd   *crowd

	mu      sync.Mutex // guards the fields below
	doors   map[string]*door
	state   state
	serving sync.WaitGroup // Serve, of each door
}

// state is how far a server has come.
type state uint8

const (
	waiting state = iota // for what it needs to know
	serving
	ending
)

// New builds a Server. It opens no connection; Run does.
func New(c Config) (*Server, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Server{config: c, log: c.Log, crowd: newCrowd(c.Limits), doors: map[string]*door{}}
	s.flights = newFlights(c.Backends.Dial)
	s.spread = &spread{balancer: c.Balancer, flights: s.flights, busy: newBusy()}
	s.proxy = httpproxy.New(httpproxy.Config{Log: c.Log, MaxUpgrades: c.MaxUpgrades})
	origin, err := vouch.NewOrigin(&rest.Config{Host: anyHost, TLSClientConfig: rest.TLSClientConfig{
		CAFile: c.Backends.CAFile, ServerName: c.Backends.ServerName, Insecure: c.Backends.Insecure,
	}})
	if err != nil {
		return nil, err
	}
	origin.Dialing(s.flights.Dial, c.Backends.HandshakeTimeout)
	s.pass = vouch.NewPass(vouch.PassConfig{
		Trust: c.Trust, Origin: origin, Proxy: s.proxy, Unknown: http.HandlerFunc(unknown), Spread: s.spread,
		CertFile: c.FrontProxyCertFile, KeyFile: c.FrontProxyKeyFile, Words: Words(), Log: c.Log,
	})
	s.http = vouch.HTTP(vouch.HTTPConfig{Handler: s.handler(), Header: c.HeaderTimeout, PingIdle: pingIdle, Log: c.Log})
	return s, nil
}

// handler returns what all requests go through.
func (s *Server) handler() http.Handler {
	var h http.Handler = s.pass
	if s.config.Mount != nil {
		h = s.config.Mount(h)
	}
	h = goaway(s.config.GoawayChance, h)
	if s.config.Access != nil {
		h = observe.Access(s.log, s.config.Access, h)
	}
	return h
}

// Handler returns the handler of all requests, for servers of other kinds.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// goaway has some clients of HTTP/2 open a new connection, as kube-apiserver's --goaway-chance: net/http sends a GOAWAY for such
// an answer, and what is open on the connection goes on.
func goaway(chance float64, next http.Handler) http.Handler {
	if chance <= 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && rand.Float64() < chance {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// unknown answers clients with certificates of nobody that is known, as kube-apiserver does.
func unknown(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		w.Header().Set("Connection", "close") // as vouch.Pass for strangers
	}
	httpproxy.Fail(w, r, httpproxy.Status(http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized"))
}

// Run serves until the context ends; what is open then is cut, so that Drain belongs before it. It returns nil then, or why it
// could not serve. While the cluster's authentication configuration cannot be had it waits, and clients with it.
func (s *Server) Run(ctx context.Context) error {
	defer s.stop()
	if err := s.pass.Load(); err != nil {
		return err
	}
	if err := s.config.Trust.Start(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	s.begin()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.config.Trust.Run(ctx) })
	group.Go(func() error { return s.follow(ctx) })
	group.Go(func() error { return s.patrol(ctx) })
	return group.Wait()
}

// begin lets clients in.
func (s *Server) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != waiting {
		return
	}
	s.state = serving
	for _, d := range s.doors {
		s.open(d)
	}
}

// open serves the clients of a door. The caller holds mu.
func (s *Server) open(d *door) {
	base := vouch.TLS(&tls.Config{MinVersion: tls.VersionTLS12}, d.pairs, s.config.Trust)
	s.serving.Go(func() {
		if err := s.http.Serve(tls.NewListener(d, base)); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("a listener has failed", "listener", d.name, "error", err)
		}
	})
}

// stop cuts what is open.
func (s *Server) stop() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Drain(over)
	s.http.Close()
	s.serving.Wait()
	s.pass.Unload() // last: what ended just now has left its connections idle
}

// Listen serves the clients of a listener, at once or when Run has what it needs. It fails if the certificate cannot be read, or
// the name is taken; the listener is the caller's then.
func (s *Server) Listen(l Listener) error {
	d, err := s.newDoor(l)
	if err != nil {
		return fmt.Errorf("listener %s: %w", l.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.doors[l.Name] != nil:
		return fmt.Errorf("listener %s: the name is taken", l.Name)
	case s.state == ending:
		return fmt.Errorf("listener %s: the server is ending", l.Name)
	}
	s.doors[l.Name] = d
	if s.state == serving {
		s.open(d)
	}
	return nil
}

// Unlisten closes a listener. Its clients' connections go on.
func (s *Server) Unlisten(name string) {
	s.mu.Lock()
	d := s.doors[name]
	delete(s.doors, name)
	s.mu.Unlock()
	if d != nil {
		d.end()
	}
}

// Drain ends the server in order: listeners are closed when who waits there has been taken in, clients of HTTP/2 are told to go (GOAWAY), watches end, and other
// requests and upgraded connections have until the context ends. It returns how many were cut then, as an error. It may be
// repeated.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.state = ending
	doors := s.doors
	s.doors = map[string]*door{}
	s.mu.Unlock()
	var ends sync.WaitGroup
	for _, d := range doors {
		ends.Go(d.end)
	}
	ends.Wait()
	var cut error
	drains := []func(context.Context) error{func(ctx context.Context) error { cut = s.proxy.Drain(ctx); return cut }}
	if s.config.Drain != nil {
		drains = append(drains, s.config.Drain)
	}
	vouch.Drain(ctx, s.http, s.log, drains...)
	return cut
}

// Ready returns why nothing can be served, or nil. It does not block.
func (s *Server) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case waiting:
		return errors.New("mode https: the cluster's authentication configuration has not been read yet")
	case ending:
		return errors.New("mode https: ending")
	}
	return nil
}

// End breaks off all that a backend has to do with, which is lost: watches end in order, requests that may be sent again are, and
// upgraded connections are reset. It returns how many requests there were. Pick should not return the backend any more.
func (s *Server) End(backend netip.AddrPort) int { return s.flights.end(backend) }

// Shed ends some watches of a backend in order, so that their clients go on at another one; never anything else. It returns how
// many.
func (s *Server) Shed(backend netip.AddrPort, most int) int { return s.flights.shedMost(backend, most) }

// LastByte returns when something came from a backend last, on a connection that is still open; the zero time: never. A backend
// that is slow to answer its check is not dead as long as it answers others.
func (s *Server) LastByte(backend netip.AddrPort) time.Time { return s.flights.lastByte(backend) }

// SetLimits changes the limits. Connections that are open stay.
func (s *Server) SetLimits(l Limits) {
	or(&l.Connections, DefaultConnections)
	s.crowd.set(l)
}

// follow takes over files that have changed, until the context ends.
func (s *Server) follow(ctx context.Context) error {
	look := func() string { return vouch.Digest(s.files()) }
	return filewatch.Follow(ctx, look(), look, func(string) {
		err := s.pass.Load()
		for _, d := range s.all() {
			err = errors.Join(err, d.pairs.Load())
		}
		if err != nil {
			s.log.Warn("certificates cannot be read again: the last good ones stay in use", "error", err)
		} else {
			s.log.Info("certificates were read again")
		}
		s.config.Trust.Reload(ctx)
	})
}

func (s *Server) files() []string {
	names := append(s.pass.Files(), s.config.Trust.Files()...)
	for _, d := range s.all() {
		names = append(names, d.pairs.Files()...)
	}
	return names
}

// all returns the doors in the order of their names.
func (s *Server) all() []*door {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.doors)
}
