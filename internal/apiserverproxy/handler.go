package apiserverproxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/httpproxy"
)

// Handler serves the proxy subresources, and hands all else on. It belongs into the handler chain of a server built on
// k8s.io/apiserver, after authentication and authorization: it takes the user and the RequestInfo from the request's
// context, and lets nothing through that the RequestInfo calls by another name.
type Handler struct {
	config    Config
	directory *directory.Directory
	locator   *locate.Locator
	outbound  *outbound.Outbound
	balancer  *balance.Balancer
	proxy     *httpproxy.Proxy
	users     *limits
	targets   *limits
	answers   answers
	gone      http.Handler
	group     string // of the resources
}

// New returns a handler that knows no object before Run.
func New(c Config) (*Handler, error) {
	c = c.complete()
	if c.StrictUpgrades && c.Authorizer == nil {
		return nil, errors.New("set up strict upgrades: there is no authorizer to ask")
	}
	h := &Handler{config: c, users: newLimits(c.MaxPerUser), targets: newLimits(c.MaxPerTarget), answers: newAnswers(), gone: Gone(), group: groupOf(c.Base)}
	h.directory = directory.New(directory.Config{Client: c.Client, Log: c.Log})
	h.locator = locate.New(c.Locate, h.directory)
	c.Outbound.Log, c.Outbound.Own = c.Log, h.own(c.Outbound.Own)
	var err error
	if h.outbound, err = outbound.New(c.Outbound); err != nil {
		return nil, fmt.Errorf("set up connections to targets: %w", err)
	}
	c.Balance.Log, c.Balance.Transports = c.Log, h.outbound
	h.balancer = balance.New(c.Balance)
	upgrades := c.MaxUpgrades
	if upgrades < 0 {
		upgrades = math.MaxInt
	}
	h.proxy = httpproxy.New(httpproxy.Config{
		Log:         c.Log,
		MaxUpgrades: upgrades,
		BodyTimeout: -1, // the original has no limit; Outbound.IdleTimeout is one
		WriteStatus: h.answers.status,
	})
	return h, nil
}

// groupOf returns the API group of a base: "" is the core group.
func groupOf(base string) string {
	group, ok := strings.CutPrefix(path.Dir(base), "/apis/")
	if !ok {
		return ""
	}
	return group
}

// own returns the function that names addresses which no target may have: the API servers', and those of the caller.
func (h *Handler) own(more func() []netip.AddrPort) func() []netip.AddrPort {
	return func() []netip.AddrPort {
		own := h.directory.APIServers()
		if more != nil {
			own = append(own[:len(own):len(own)], more()...)
		}
		return own
	}
}

// Run keeps the handler's objects, certificates and pools up to date until the context ends; then it returns nil.
func (h *Handler) Run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return h.directory.Run(ctx) })
	all.Go(func() error { return h.outbound.Run(ctx) })
	all.Go(func() error { return h.balancer.Run(ctx) })
	return all.Wait()
}

// Synced is closed once all objects that the API server had at the start are known.
func (h *Handler) Synced() <-chan struct{} { return h.directory.Synced() }

// Drain lets no new request in, and waits until those that are there have ended or the context does; then it cuts them.
// See httpproxy.Proxy.Drain.
func (h *Handler) Drain(ctx context.Context) error { return h.proxy.Drain(ctx) }

// Upgrades returns how many upgraded connections are open.
func (h *Handler) Upgrades() int {
	_, upgrades := h.proxy.Open()
	return upgrades
}

// Collectors returns the metrics.
func (h *Handler) Collectors() []prometheus.Collector {
	silent := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "varco_apiserver_proxy_apiserver_silent_seconds",
		Help: "For how long the API server has not answered watches; requests are served by what was known then.",
	}, func() float64 {
		since, _ := h.directory.Lost()
		if since.IsZero() {
			return 0
		}
		return time.Since(since).Seconds()
	})
	return []prometheus.Collector{h.balancer, h.outbound.Collector(), silent}
}

// Ready returns why requests cannot be served yet, or nil. It does not block.
func (h *Handler) Ready() error {
	select {
	case <-h.directory.Synced():
		return nil
	default:
		return errors.New("the API server has not listed Services, EndpointSlices, pods and nodes yet")
	}
}

// Lost returns why the API server is taken to be away, or nil: it has answered no watch for some time. What is known is served
// all the same.
func (h *Handler) Lost() error {
	since, err := h.directory.Lost()
	if since.IsZero() {
		return nil
	}
	if err == nil {
		err = errors.New("it takes requests and says nothing")
	}
	return fmt.Errorf("the API server has not answered for %v: %w", time.Since(since).Round(time.Second), err)
}

// IsProxyPath tells whether a request is for a handler with this base, be its path good or bad.
func IsProxyPath(base string, r *http.Request) bool {
	_, ok, _ := address.Parse(base, r.URL.EscapedPath())
	return ok
}

// IsGone tells whether a request is for a path that was a proxy's or a redirect's in Kubernetes up to 1.9.
func IsGone(r *http.Request) bool {
	_, ok := address.Gone(r.URL.EscapedPath())
	return ok
}

// Gone returns the handler of such requests: it answers 410 with the URL of today.
func Gone() http.Handler {
	a := newAnswers()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		today, _ := address.Gone(r.URL.EscapedPath())
		a.fail(w, r, gone(r.URL.Path, today))
	})
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, ok, err := address.Parse(h.config.Base, r.URL.EscapedPath())
	if !ok {
		h.other(w, r)
		return
	}
	h.measure(w, r, a, err)
}

// other serves what is no proxy path: what was one in Kubernetes up to 1.9, and what is for somebody else.
func (h *Handler) other(w http.ResponseWriter, r *http.Request) {
	if IsGone(r) {
		h.gone.ServeHTTP(w, r)
		return
	}
	h.config.Next.ServeHTTP(w, r)
}
