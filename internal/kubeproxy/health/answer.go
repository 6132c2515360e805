package health

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"varco.dev/internal/kubeproxy/listeners"
	"varco.dev/internal/observe"
	"varco.dev/internal/service"
)

// maxChecks bounds the connections to one health check at a time.
const maxChecks = 64

// listener is an open one.
type listener struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it listens no more
}

// Ended implements listeners.Listener.
func (l *listener) Ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Close implements listeners.Listener. Answers that are on their way get two seconds.
func (l *listener) Close() {
	l.cancel()
	<-l.done
}

// listen opens one place, until it is closed or the context ends.
func (s *Services) listen(ctx context.Context, p place) (listeners.Listener, error) {
	family := service.FamilyOf(p.addr.Addr())
	socket, err := s.config.Listen(ctx, network(family), p.addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", p.addr, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &listener{cancel: cancel, done: make(chan struct{})}
	go func() {
		err := observe.ServeOn(ctx, socket, s.handler(p.service, family), maxChecks)
		close(l.done)
		if err != nil {
			s.config.Log.Error("the health check of a Service has ended", "service", p.service, "address", p.addr, "error", err)
			s.look()
		}
	}()
	return l, nil
}

// network keeps the families apart: the IPv6 socket of all addresses would take in IPv4, whose count is another.
func network(f service.Family) string {
	if f == service.IPv4 {
		return "tcp4"
	}
	return "tcp6"
}

// handler answers as kube-proxy does, to the letter: load balancers may read the body or the header.
func (s *Services) handler(name service.Name, family service.Family) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		count, healthy := s.count(name, family), s.config.Healthy()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(count))
		if count == 0 || !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "{\n\t\"service\": {\n\t\t\"namespace\": %q,\n\t\t\"name\": %q\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %v\n}",
			name.Namespace, name.Name, count, healthy)
	})
}
