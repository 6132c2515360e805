package apiserverlb

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/backend/health"
)

const (
	// readyTimeout bounds a request to ourselves. It leaves time for one backend that does not answer.
	readyTimeout = 3 * time.Second
	// readyAge is for how long an answer counts: however many ask, there is one request a second.
	readyAge = time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
)

var (
	// errDraining says that the balancer is about to end.
	errDraining = errors.New("ending: new connections are taken only for the shutdown delay")
	errNoAnswer = errors.New("no API server answers through the own data path")
)

// readiness asks for the API servers' health through the balancer's own data path: that a process runs, and that it takes
// connections, says nothing of whether clients are served.
type readiness struct {
	mu  sync.Mutex // held while asking: others wait for the same answer
	at  time.Time
	err error
}

// Ready returns why no clients should be sent here, or nil. It takes three seconds at most. Every answer of an API server will
// do: if all of them say that they are not ready, clients are served as well as can be all the same.
func (lb *LB) Ready(ctx context.Context) error {
	if lb.draining.Load() {
		return errDraining
	}
	select {
	case <-lb.serving:
	default:
		return errStarting
	}
	if lb.https != nil {
		if err := lb.https.Ready(); err != nil {
			return err
		}
	}
	r := &lb.readiness
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) >= readyAge {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		r.err = lb.askOwn(ctx)
		r.at = time.Now()
	}
	return r.err
}

// askOwn asks an API server through a new connection to a listener.
func (lb *LB) askOwn(ctx context.Context) error {
	l := lb.listeners.first()
	if l == nil {
		return errStarting
	}
	by := lb.shown.Load()
	q, err := lb.ownRequest(ctx, lb.settings.Load().Health.Path, by)
	if err != nil {
		return err
	}
	conn, err := l.secure(ctx, by)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	defer conn.Close()
	code, err := exchange(ctx, conn, q)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	case l.config.Mode == config.ModeHTTPS && code >= http.StatusBadGateway && code <= http.StatusGatewayTimeout:
		return fmt.Errorf("%w: %d %s", errNoAnswer, code, http.StatusText(code))
	}
	return nil
}

// secure connects as a client would, with TLS.
func (l *listener) secure(ctx context.Context, by *health.Credentials) (net.Conn, error) {
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	if l.config.Mode == config.ModeHTTPS {
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), nil // it is ourselves
	}
	return handshake(ctx, conn, by)
}

// exchange sends a request, and returns the status of its answer. It reads to the end: who closes before that resets, and such
// a connection would be counted among those that went wrong.
func exchange(ctx context.Context, conn net.Conn, q *http.Request) (status int, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	q.Close = true
	if err := q.Write(conn); err != nil {
		return 0, err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	resp, err := http.ReadResponse(r, q)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, r) // the answer has come, whatever happens
	return resp.StatusCode, nil
}

func (lb *LB) ownRequest(ctx context.Context, path string, by *health.Credentials) (*http.Request, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://balancer"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("health.path: %w", err)
	}
	token, err := by.Token()
	if err != nil {
		return nil, err
	}
	q.Header.Set("User-Agent", "varco-apiserver-lb-ready/"+lb.config.Version)
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	return q, nil
}
