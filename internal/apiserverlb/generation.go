package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiwatch/apiservers"
	"varco.dev/internal/backend/discovery"
	"varco.dev/internal/backend/health"
	"varco.dev/internal/filewatch"
)

// renewed is something that runs by a part of the settings, and is made anew when that part is another.
type renewed struct {
	part func(*config.Config) any
	// make returns what runs until its context ends, and takes it for the one in use. It is not called before the last one has
	// ended.
	make     func(*config.Config) (func(context.Context) error, error)
	reloaded chan struct{} // capacity 1: the settings may be others
}

// reload has it look at the settings.
func (r *renewed) reload() {
	select {
	case r.reloaded <- struct{}{}:
	default: // it is going to
	}
}

// run runs one after the other until the context ends.
func (r *renewed) run(ctx context.Context, settings func() *config.Config) error {
	for ctx.Err() == nil {
		c := settings()
		run, err := r.make(c)
		if err != nil {
			return err
		}
		inner, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- run(inner) }()
		for running := true; running; {
			select {
			case err = <-ended:
				running = false
			case <-r.reloaded:
				if !reflect.DeepEqual(r.part(settings()), r.part(c)) {
					stop()
				}
			}
		}
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// newChecker makes what checks backends.
func (lb *LB) newChecker(c *config.Config) (func(context.Context) error, error) {
	by := lb.credentials(c.Health)
	lb.shown.Store(by)
	if _, err := by.TLS(context.Background()); err != nil {
		lb.log.Warn("backends cannot be checked", "error", err)
	}
	checker := health.New(health.Config{
		Interval: c.Health.Interval.Duration, Timeout: c.Health.Timeout.Duration, Path: c.Health.Path,
		Policy: health.Policy{Fall: c.Health.Fall, Rise: c.Health.Rise},
		TLS:    by.TLS, Token: by.Token,
		LastByte: lb.relay.LastByte,
		Changed:  func([]health.Verdict) { lb.wake() },
		Log:      lb.log,
	})
	lb.checker.Store(checker)
	return checker.Run, nil
}

// findsBy is what finding backends depends on: the own listeners are none.
func findsBy(c *config.Config) any {
	var own []string
	for _, l := range c.Listeners {
		own = append(own, l.Address)
	}
	return struct {
		config.Backends
		own []string
	}{c.Backends, own}
}

// newDiscovery makes what finds backends. What was found before counts until the same source answers again.
func (lb *LB) newDiscovery(c *config.Config) (func(context.Context) error, error) {
	d, err := discovery.New(lb.finds(c))
	if err != nil {
		return nil, fmt.Errorf("backends.static: %w", err)
	}
	lb.discovery.Store(d)
	return d.Run, nil
}

// finds is how backends are found by the settings.
func (lb *LB) finds(c *config.Config) discovery.Config {
	d := discovery.Config{
		CacheFile: c.Backends.CacheFile, Period: c.Backends.DNSPeriod.Duration, Own: lb.own,
		Changed: func([]discovery.Found) { lb.wake() },
		After:   lb.discovery.Load(),
		Log:     lb.log,
	}
	for _, s := range c.Backends.Static {
		d.Static = append(d.Static, discovery.Static{Address: s.Address, Zone: s.Zone})
	}
	if kubeconfig := c.Backends.Kubernetes.Kubeconfig; kubeconfig != "" {
		d.Slices = func(ctx context.Context, changed func([]netip.AddrPort)) error {
			return lb.watchSlices(ctx, kubeconfig, changed)
		}
	}
	return d
}

// errRenewed is why slices are watched anew.
var errRenewed = errors.New("the kubeconfig has changed")

// watchSlices watches the EndpointSlices until the context ends, or the kubeconfig is another: client-go reads files again that
// it names, but not what it holds itself, such as a certificate that kubeadm has renewed.
func (lb *LB) watchSlices(ctx context.Context, kubeconfig string, changed func([]netip.AddrPort)) error {
	look := func() string {
		content, err := filewatch.Read(kubeconfig, filewatch.Most)
		return fmt.Sprint(string(content), err)
	}
	first := look()
	client, err := lb.ownClient(kubeconfig)
	if err != nil {
		return fmt.Errorf("backends.kubernetes.kubeconfig: %w", err)
	}
	watching, end := context.WithCancelCause(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer end(nil)
	following.Go(func() {
		_ = filewatch.Follow(watching, first, look, func(string) { end(errRenewed) }) // always nil
	})
	err = apiservers.Watch(watching, apiservers.Config{Client: client, Log: lb.log}, changed)
	if cause := context.Cause(watching); cause != nil {
		return cause
	}
	return err
}

// ownConfig is how this process itself asks API servers: through the balancer, whatever address the kubeconfig has, so that
// it is answered for as long as any API server is there.
func (lb *LB) ownConfig(kubeconfig string) (*rest.Config, error) {
	if _, err := filewatch.Read(kubeconfig, filewatch.Most); err != nil { // client-go would wait at a pipe
		return nil, err
	}
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	c.UserAgent = "varco-apiserver-lb/" + lb.config.Version
	c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return lb.dialAPI(ctx) }
	c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } // whatever the environment says
	return c, nil
}

func (lb *LB) ownClient(kubeconfig string) (kubernetes.Interface, error) {
	c, err := lb.ownConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(c)
}
