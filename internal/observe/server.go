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

// Bounds of the HTTP servers for health and metrics. An answer may take a minute because a CPU profile takes 30 seconds.
const (
	headerTimeout   = 5 * time.Second
	answerTimeout   = time.Minute
	idleTimeout     = 30 * time.Second
	maxConnections  = 256
	maxHeaderBytes  = 16 << 10
	shutdownTimeout = 2 * time.Second
	bindRetry       = 5 * time.Second // as kube-proxy
)

// Server answers HTTP on one address.
type Server struct {
	Address string       // host:port; empty: nothing is served
	Handler http.Handler // required
	Log     *slog.Logger // required
	// HardFail has Run end with the error if the address cannot be used. Otherwise it tries again every 5 seconds: what a
	// proxy does for traffic must not depend on a port for its health being free.
	HardFail bool
	Failed   func(error) // optional: told when the address cannot be used, once until it can; must not block
}

// Run serves until the context ends; then it returns nil.
func (s Server) Run(ctx context.Context) error {
	told := false
	for {
		began := time.Now()
		err := Serve(ctx, s.Address, s.Handler)
		if ctx.Err() != nil {
			return nil
		}
		told = told && time.Since(began) < bindRetry // it has served meanwhile
		if !told && s.Failed != nil {
			s.Failed(err)
			told = true
		}
		if s.HardFail {
			return err
		}
		s.Log.Error("cannot serve HTTP, trying again", "after", bindRetry, "error", err)
		select {
		case <-ctx.Done():
			return nil
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
	if err := ServeOn(ctx, listener, handler, maxConnections); err != nil {
		return fmt.Errorf("serve HTTP on %s: %w", address, err)
	}
	return nil
}

// ServeOn answers HTTP on a listener, for so many connections at a time, until the context ends; then it returns nil. It
// closes the listener.
func ServeOn(ctx context.Context, listener net.Listener, handler http.Handler, connections int) error {
	server := &http.Server{
		Handler: bodySoon(handler), MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
	defer func() {
		if !stop() {
			<-ended // answers that are being written get their time
		}
	}()
	if err := server.Serve(netutil.LimitListener(listener, connections)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bodySoon gives clients as long for the body of a request as for its header. The server reads a body before it answers,
// wanted or not, and a client that never sends it would keep its connection for good.
func bodySoon(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerTimeout)) // connections have deadlines
		}
		handler.ServeHTTP(w, r)
	})
}

// Check returns a handler that answers 200 and "ok", or 503 and what is wrong.
func Check(wrong func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		plainText(w)
		if err := wrong(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

// Text returns a handler that answers this text.
func Text(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		plainText(w)
		fmt.Fprint(w, text)
	})
}

func plainText(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}
