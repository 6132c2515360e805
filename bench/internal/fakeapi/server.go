package fakeapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/cert"
)

// Files that Run writes to Server.Dir, the address last: when it is there, the server listens.
const (
	// CAFile has the certificates that clients are to trust, as PEM.
	CAFile = "ca.crt"
	// AddressFile has the server's address, such as 127.0.0.1:40000.
	AddressFile = "address"
)

// host is what the certificate is for, and where the server listens.
const host = "127.0.0.1"

// window is what an API server lets clients send before it has read it, for each request.
const window = 256 << 10

// Server is an API server without objects.
type Server struct {
	// Dir gets the files by which clients find the server.
	Dir string
	// EventsPerSecond of each watch.
	EventsPerSecond int
	Log             *slog.Logger

	watches watches
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	pem, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.ParseIP(host)}, nil)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(pem, key)
	if err != nil {
		return fmt.Errorf("read own certificate: %w", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	if err := s.announce(pem, l.Addr().String()); err != nil {
		return errors.Join(err, l.Close())
	}
	go s.watches.run(ctx, s.interval())
	srv := &http.Server{
		Handler:   http.HandlerFunc(s.serve),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ErrorLog:  slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), // clients that go away in the middle of an answer
		// As an API server has it (k8s.io/apiserver, pkg/server/secure_serving.go): clients open a connection for each 100
		// watches, and an upload has windows of this length. Its window of a connection is longer than net/http allows.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: window, MaxReceiveBufferPerStream: window,
			MaxReceiveBufferPerConnection: 4<<20 - 1},
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // it ends anyway, and Serve tells how
	defer stop()
	if err := srv.ServeTLS(l, "", ""); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func (s *Server) interval() time.Duration { return time.Second / time.Duration(s.EventsPerSecond) }

func (s *Server) announce(pem []byte, address string) error {
	if err := os.WriteFile(filepath.Join(s.Dir, CAFile), pem, 0o644); err != nil {
		return err
	}
	// Whoever waits for the file must not read half of it.
	half := filepath.Join(s.Dir, AddressFile+".new")
	if err := os.WriteFile(half, []byte(address), 0o644); err != nil {
		return err
	}
	return os.Rename(half, filepath.Join(s.Dir, AddressFile))
}

// serve answers by what the request is like, not by its path: every path leads somewhere.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	switch q := r.URL.Query(); {
	case r.Method != http.MethodGet:
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, piece))
		if err != nil {
			return // the client is gone
		}
		s.status(w, n)
	case q.Get("watch") == "true":
		s.watch(w, r, q.Get("together") == "true")
	case q.Has("bytes"):
		body(w, q)
	default:
		s.status(w, 0)
	}
}
