package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"

	"varco.dev/internal/service"
)

// Bounds of the server.
const (
	maxClients  = 16
	answerTime  = 30 * time.Second
	headerTime  = 5 * time.Second
	listenRetry = 5 * time.Second
	probeTime   = time.Second
)

// Query asks what happens to a connection.
type Query struct {
	To       netip.AddrPort
	Protocol service.Protocol
	From     netip.Addr // the client's address; the zero value is one outside of the cluster
}

// Source is what the server tells. Both functions may be called at any time, by several at once.
type Source interface {
	// Status returns the state now, of all Services.
	Status(ctx context.Context) (Status, error)
	// Explain returns what happens to a connection, as a value that can be written as JSON.
	Explain(ctx context.Context, q Query) (Explanation, error)
}

// Server serves a Source over a unix socket, to root alone.
type Server struct {
	Socket string // path; empty: nothing is served
	Source Source
	Log    *slog.Logger
}

// Run serves until the context ends; then it removes the socket and returns nil. Where the socket cannot be made it says
// so in the log and tries again: what a proxy does for traffic does not depend on it.
func (s *Server) Run(ctx context.Context) error {
	for s.Socket != "" && ctx.Err() == nil {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.Log.Warn("cannot serve the status socket, trying again", "after", listenRetry, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(listenRetry):
		}
	}
	<-ctx.Done()
	return nil
}

func (s *Server) serve(ctx context.Context) error {
	listener, err := listen(ctx, s.Socket)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headerTime, WriteTimeout: answerTime,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	return server.Serve(netutil.LimitListener(listener, maxClients)) // removes the socket at its end
}

// listen makes the socket. One that is left of a process that is gone is replaced, one that answers is not.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the status socket: %w", err)
	}
	probe := net.Dialer{Timeout: probeTime}
	if c, err := probe.DialContext(ctx, "unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another kube-proxy serves %s: give one of them another --status-socket", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s is there and not a socket: remove it, or give another --status-socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove an old status socket: %w", err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("make the status socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("protect the status socket: %w", err)
	}
	return listener, nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		status, err := s.Source.Status(r.Context())
		answer(w, status, err)
	})
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		q, err := decodeQuery(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		explanation, err := s.Source.Explain(r.Context(), q)
		answer(w, explanation, err)
	})
	return mux
}

func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
	}
}
