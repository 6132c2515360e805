package echo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"varco.dev/internal/nettest/sctp"
)

// Config says what to serve, and where. An address such as ":8080" or "[::]:8080" stands for both families; an empty
// one turns the protocol off.
type Config struct {
	Identity Identity // required
	PodIP    string   // optional: a further name in the certificate

	HTTP, HTTPS, H2C string // HTTP/1.1; HTTPS with HTTP/1.1 and HTTP/2; HTTP/2 without TLS
	TCP, UDP, SCTP   string

	// ShutdownDelay is how long Run serves on, new connections included, after its context ended: clients come for as
	// long as not every node knows that this pod goes.
	ShutdownDelay time.Duration
	// DrainTimeout bounds the wait for open requests after that.
	DrainTimeout time.Duration

	Log *slog.Logger // required
}

// Server has its sockets open, so that clients may connect, and serves once Run is called.
type Server struct {
	cfg  Config
	http []httpServer
	tcp  net.Listener
	udp  *net.UDPConn
	sctp *sctp.Listener

	unready  atomic.Bool
	draining atomic.Bool   // answers ask clients to connect anew
	stopping chan struct{} // closed when endless answers must end
}

type httpServer struct {
	name     string
	server   *http.Server
	listener net.Listener
	serve    func(net.Listener) error
}

// Listen opens the sockets. Run closes them.
func Listen(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, stopping: make(chan struct{})}
	if err := errors.Join(s.listenHTTP(), s.listenOthers()); err != nil {
		return nil, errors.Join(err, s.closeAll())
	}
	return s, nil
}

func (s *Server) listenHTTP() error {
	cert, err := selfSigned(s.cfg.PodIP)
	if err != nil {
		return err
	}
	for _, p := range []struct {
		name, address string
		setup         func(*http.Server) func(net.Listener) error
	}{
		{"http", s.cfg.HTTP, plainHTTP},
		{"https", s.cfg.HTTPS, cert.https},
		{"h2c", s.cfg.H2C, unencryptedHTTP2},
	} {
		if p.address == "" {
			continue
		}
		l, err := net.Listen("tcp", p.address)
		if err != nil {
			return fmt.Errorf("serve %s: %w", p.name, err)
		}
		h := &http.Server{
			Handler:           s.handler(),
			ReadHeaderTimeout: time.Minute,
			ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		}
		s.http = append(s.http, httpServer{name: p.name, server: h, listener: l, serve: p.setup(h)})
	}
	return nil
}

func (s *Server) listenOthers() (err error) {
	if s.cfg.TCP != "" {
		if s.tcp, err = net.Listen("tcp", s.cfg.TCP); err != nil {
			return fmt.Errorf("serve TCP echo: %w", err)
		}
	}
	if s.cfg.UDP != "" {
		if s.udp, err = listenUDP(s.cfg.UDP); err != nil {
			return fmt.Errorf("serve UDP echo: %w", err)
		}
	}
	if s.cfg.SCTP != "" {
		if s.sctp, err = sctp.Listen(s.cfg.SCTP); err != nil {
			return fmt.Errorf("serve SCTP echo (--sctp= turns it off): %w", err)
		}
	}
	return nil
}

// closeAll closes the sockets of a server that never ran.
func (s *Server) closeAll() error {
	var errs []error
	for _, h := range s.http {
		errs = append(errs, h.listener.Close())
	}
	if s.tcp != nil {
		errs = append(errs, s.tcp.Close())
	}
	if s.udp != nil {
		errs = append(errs, s.udp.Close())
	}
	return errors.Join(errs...)
}

// Addr returns the address that a protocol ("http", "https", "h2c", "tcp", "udp") is served at, nil if it is not.
func (s *Server) Addr(protocol string) net.Addr {
	for _, h := range s.http {
		if h.name == protocol {
			return h.listener.Addr()
		}
	}
	switch {
	case protocol == "tcp" && s.tcp != nil:
		return s.tcp.Addr()
	case protocol == "udp" && s.udp != nil:
		return s.udp.LocalAddr()
	}
	return nil
}

// Run serves until ctx ends, then for the shutdown delay as before, then until open requests are done or the drain
// timeout is over. It returns an error only if serving failed.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, len(s.http))
	var wg sync.WaitGroup
	for _, h := range s.http {
		wg.Go(func() {
			if err := h.serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", h.name, err)
			}
		})
	}
	streams := &streamServer{}
	if s.tcp != nil {
		wg.Go(func() { streams.serveTCP(s.tcp, s.cfg.Identity) })
	}
	if s.udp != nil {
		wg.Go(func() { serveUDP(s.udp, s.cfg.Identity) })
	}
	if s.sctp != nil {
		wg.Go(func() { serveSCTP(s.sctp, s.cfg.Identity) })
	}
	s.cfg.Log.Info("serving", "pod", s.cfg.Identity.Pod, "node", s.cfg.Identity.Node)
	err := s.wait(ctx, failed)
	s.drain(streams)
	wg.Wait()
	return err
}

// wait returns when it is time to stop accepting.
func (s *Server) wait(ctx context.Context, failed <-chan error) error {
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.cfg.Log.Info("stopping: new connections are still served", "for", s.cfg.ShutdownDelay)
	s.draining.Store(true)
	select {
	case err := <-failed:
		return err
	case <-time.After(s.cfg.ShutdownDelay):
		return nil
	}
}

// drain stops accepting and waits for what is open, in bounds.
func (s *Server) drain(streams *streamServer) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout)
	defer cancel()
	close(s.stopping)
	var wg sync.WaitGroup
	for _, h := range s.http {
		wg.Go(func() {
			if err := h.server.Shutdown(ctx); err != nil {
				s.cfg.Log.Warn("open requests were cut off", "protocol", h.name, "err", err)
				h.server.Close()
			}
		})
	}
	if s.tcp != nil {
		wg.Go(func() {
			if !streams.shutdown(ctx, s.tcp) {
				s.cfg.Log.Warn("open connections were cut off", "protocol", "tcp")
			}
		})
	}
	if s.udp != nil {
		s.udp.Close()
	}
	if s.sctp != nil {
		wg.Go(func() { s.sctp.Close() })
	}
	wg.Wait()
}
