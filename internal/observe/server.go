package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the HTTP servers for health and metrics.
const (
	headerTimeout   = 5 * time.Second
	answerTimeout   = 30 * time.Second
	idleTimeout     = 30 * time.Second
	maxConnections  = 256
	maxHeaderBytes  = 16 << 10
	shutdownTimeout = 2 * time.Second
	bindRetry       = 5 * time.Second
)

// Keep serves like Serve and, where the address cannot be used, says so in the log and tries again every 5 seconds: what a
// proxy does for traffic must not depend on a port for its health being free. It returns when the context ends.
func Keep(ctx context.Context, address string, handler http.Handler, log *slog.Logger) {
	for {
		if err := Serve(ctx, address, handler); err != nil {
			log.Error("cannot serve HTTP, trying again", "after", bindRetry, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(bindRetry):
		}
	}
}

// Serve answers HTTP on the address until the context ends; then it returns nil. An empty address serves nothing.
func Serve(ctx context.Context, address string, handler http.Handler) error {
	if address == "" {
		<-ctx.Done()
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve HTTP on %s: %w", address, err)
	}
	listener = netutil.LimitListener(listener, maxConnections)
	server := &http.Server{
		Handler: handler, MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
	}
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", address, err)
	}
	return nil
}

// Check returns a handler that answers 200 and "ok", or 503 and what is wrong.
func Check(wrong func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := wrong(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}
