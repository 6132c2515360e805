//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/metrics/legacyregistry"

	"varco.dev/internal/apiserverproxy"
	"varco.dev/internal/apiserverproxy/outbound/egress"
	"varco.dev/internal/apiserverproxy/server"
	"varco.dev/internal/observe"
)

// apiserverProxyRun is what one run of the command has.
type apiserverProxyRun struct {
	flags  *apiserverProxyFlags
	config apiserverproxy.Config
	rest   *rest.Config
	access *observe.AccessMetrics
	log    *slog.Logger
}

// prepare makes of the flags what both ways need. port is where they serve.
func (f *apiserverProxyFlags) prepare(errOut io.Writer, way, address string, port int) (*apiserverProxyRun, error) {
	config, err := f.config()
	if err != nil {
		return nil, err
	}
	log, _ := observe.NewLog(errOut, f.logFormat, f.verbosity)
	r := &apiserverProxyRun{flags: f, config: config, access: observe.NewAccessMetrics(), log: log.With("component", "apiserver-proxy", "way", way)}
	if r.rest, err = apiServerOf(f.kubeconfig); err != nil {
		return nil, err
	}
	r.rest.UserAgent = "varco-apiserver-proxy/" + version()
	r.config.Log = r.log
	if r.config.Client, err = kubernetes.NewForConfig(forWatches(r.rest)); err != nil {
		return nil, fmt.Errorf("prepare the connection to the API server: %w", err)
	}
	if f.egress != "" {
		if r.config.Outbound.Egress, err = egress.Read(f.egress); err != nil {
			return nil, fmt.Errorf("--egress-selector-config-file: %w", err)
		}
	}
	own := ownAddresses(r.rest.Host, address, port)
	r.config.Outbound.Own = func() []netip.AddrPort { return own }
	return r, nil
}

// apiServerOf returns how the API server is reached.
func apiServerOf(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("find the API server (give --kubeconfig, or run in a pod): %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return config, nil
}

// forWatches is a configuration for requests of our own: without a rate limit, and in protobuf.
func forWatches(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = config.ContentType + ",application/json"
	return config
}

// ownAddresses are where this process serves and where its API server is, if that is an address: targets at them would be a
// way around authorization.
func ownAddresses(apiServer, address string, port int) (out []netip.AddrPort) {
	if a, err := netip.ParseAddr(address); err == nil {
		out = append(out, netip.AddrPortFrom(a, uint16(port)))
	}
	u, err := url.Parse(apiServer)
	if err != nil {
		return out
	}
	number := uint16(443)
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		number = uint16(n)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		out = append(out, netip.AddrPortFrom(a, number))
	}
	return out
}

// front runs the server in front of an API server.
func (f *apiserverProxyFlags) front(ctx context.Context, errOut io.Writer, options *server.FrontOptions) error {
	if err := options.Validate(); err != nil {
		return err
	}
	r, err := f.prepare(errOut, "front", options.Serving.BindAddress.String(), options.Serving.BindPort)
	if err != nil {
		return err
	}
	proxy := &late{config: r.config}
	front, err := server.NewFront(server.FrontConfig{
		Options: options, Kubeconfig: r.rest, Access: r.access, Log: r.log,
		IsProxy: func(q *http.Request) bool { return apiserverproxy.IsProxyPath(apiserverproxy.BaseCore, q) },
		IsGone:  apiserverproxy.IsGone,
		Gone:    apiserverproxy.Gone(),
		Proxy:   proxy.make,
		Drain:   proxy.drain,
	})
	if err := errors.Join(err, proxy.failed); err != nil {
		return err
	}
	return r.run(ctx, proxy.handler, front)
}

// aggregated runs the server of the aggregated API.
func (f *apiserverProxyFlags) aggregated(ctx context.Context, errOut io.Writer, options *server.Options) error {
	if err := options.Validate(); err != nil {
		return err
	}
	r, err := f.prepare(errOut, "aggregated", options.Serving.BindAddress.String(), options.Serving.BindPort)
	if err != nil {
		return err
	}
	r.config.Base, r.config.Aggregated = apiserverproxy.BaseAggregated, true
	proxy := &late{config: r.config}
	aggregated, err := server.NewAggregated(server.AggregatedConfig{
		Options: options, Kubeconfig: r.rest, Access: r.access, Log: r.log,
		IsProxy: func(q *http.Request) bool { return apiserverproxy.IsProxyPath(apiserverproxy.BaseAggregated, q) },
		Proxy:   proxy.make,
		Drain:   proxy.drain,
	})
	if err := errors.Join(err, proxy.failed); err != nil {
		return err
	}
	return r.run(ctx, proxy.handler, aggregated)
}

// late is a handler that is made when its server has an authorizer for it.
type late struct {
	config  apiserverproxy.Config
	handler *apiserverproxy.Handler
	failed  error
}

func (l *late) make(next http.Handler, authz authorizer.Authorizer) http.Handler {
	l.config.Next, l.config.Authorizer = next, authz
	l.handler, l.failed = apiserverproxy.New(l.config)
	return l.handler
}

// drain lets upgraded connections to targets end.
func (l *late) drain(ctx context.Context) error { return l.handler.Drain(ctx) }

// mounted is a server that the handler is mounted in.
type mounted interface {
	// Run serves until the context ends and all requests have; it returns nil then.
	Run(ctx context.Context) error
	// Ready returns why it cannot serve. It does not block.
	Ready() error
}

// run runs the handler, the server and the metrics until the context ends. The handler outlives the server, which waits for
// its requests.
func (r *apiserverProxyRun) run(ctx context.Context, handler *apiserverproxy.Handler, in mounted) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	all, working := errgroup.WithContext(working)
	all.Go(func() error { return handler.Run(working) })
	all.Go(func() error { return giveBack(working, handler.Upgrades, debug.FreeOSMemory) })
	all.Go(func() error { return r.metrics(handler, in).Run(working) })
	all.Go(func() error {
		defer stop()
		quiet := context.AfterFunc(ctx, func() { r.log.Info("was asked to end: takes no new requests, and waits for those that are open") })
		defer quiet()
		serving, cancel := context.WithCancel(ctx)
		defer cancel()
		context.AfterFunc(working, cancel) // a part that fails ends the others
		return in.Run(serving)
	})
	return all.Wait()
}

// lost returns why a front is better left out by who balances over several, or nil: what it passes on would meet nobody. The
// aggregated way has its clients from that very API server.
func (r *apiserverProxyRun) lost(handler *apiserverproxy.Handler) error {
	if r.config.Aggregated {
		return nil
	}
	return handler.Lost()
}

// metrics is the server of /metrics, /healthz and /readyz.
func (r *apiserverProxyRun) metrics(handler *apiserverproxy.Handler, in mounted) observe.Server {
	registry := prometheus.NewRegistry()
	registry.MustRegister(observe.BuildInfo(version()), r.access)
	registry.MustRegister(handler.Collectors()...)
	gatherers := prometheus.Gatherers{registry, legacyregistry.DefaultGatherer}
	pages := observe.Pages{
		Component: "apiserver-proxy", Version: version(), Started: time.Now(), Profiling: r.flags.profiling,
		Metrics: promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{}),
	}
	mux := http.NewServeMux()
	mux.Handle("/", pages.Handler())
	mux.Handle("/readyz", observe.Check(func() error { return errors.Join(in.Ready(), handler.Ready(), r.lost(handler)) }))
	return observe.Server{Address: r.flags.metricsAddress, Handler: mux, Log: r.log, HardFail: true}
}
