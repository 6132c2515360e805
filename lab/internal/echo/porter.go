package echo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Porter serves fixed texts, each at its port, as "agnhost porter" does, the server of Kubernetes' conformance tests.
type Porter struct {
	Plain, TLS map[string]string // what is served, by port
	JSON       bool              // wrap it: {"Method":…,"Body":…}
	Log        *slog.Logger      // required
}

// Prefixes of the variables that say what to serve at the port that follows; they are agnhost's.
const (
	plainPrefix = "SERVE_PORT_"
	tlsPrefix   = "SERVE_TLS_PORT_"
)

// PorterCommand returns the hidden command "porter".
func PorterCommand() *cobra.Command {
	p := Porter{Plain: map[string]string{}, TLS: map[string]string{}}
	cmd := &cobra.Command{
		Use:    "porter",
		Short:  "Serve the values of SERVE_PORT_n and SERVE_TLS_PORT_n at port n, as agnhost porter does",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			p.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			p.read(os.Environ())
			return p.Run(ctx)
		},
	}
	cmd.Flags().BoolVar(&p.JSON, "json-response", false, "answer with JSON that has the method and the value")
	return cmd
}

func (p *Porter) read(environ []string) {
	for _, v := range environ {
		key, value, _ := strings.Cut(v, "=")
		if port, ok := strings.CutPrefix(key, plainPrefix); ok {
			p.Plain[port] = value
		}
		if port, ok := strings.CutPrefix(key, tlsPrefix); ok {
			p.TLS[port] = value
		}
	}
}

// Run serves until ctx ends, or until one port cannot be served.
func (p *Porter) Run(ctx context.Context) error {
	cert, err := selfSigned("")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	serve := func(port, value string, setup func(*http.Server) func(net.Listener) error) {
		wg.Go(func() {
			if err := p.serve(ctx, port, value, setup); err != nil {
				cancel(fmt.Errorf("serve port %s: %w", port, err))
			}
		})
	}
	for port, value := range p.Plain {
		serve(port, value, plainHTTP)
	}
	for port, value := range p.TLS {
		serve(port, value, cert.https)
	}
	<-ctx.Done()
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (p *Porter) serve(ctx context.Context, port, value string, setup func(*http.Server) func(net.Listener) error) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	s := &http.Server{
		Handler:           p.handler(value),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := setup(s)(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler leaves the content type to net/http, which takes a text that begins with a tag for HTML.
func (p *Porter) handler(value string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.JSON {
			_, _ = io.WriteString(w, value) // the client went away
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(struct{ Method, Body string }{r.Method, value})
	})
}
