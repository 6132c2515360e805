//go:build linux

package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/apiserverproxy"
	"varco.dev/internal/apiserverproxy/outbound/egress"
	"varco.dev/internal/apiserverproxy/server"
	"varco.dev/internal/httpproxy/vouch"
)

// mountedProxy is the apiserver proxy behind the listeners of the balancer.
type mountedProxy struct {
	*server.Mounted
	proxy *late
}

// mount makes it.
func (r *apiserverLBRun) mount(trust *vouch.Trust, api *rest.Config) (apiserverlb.Mounted, error) {
	f := r.flags
	c, err := f.proxy.config()
	if err != nil {
		return nil, err
	}
	c.Log, c.Balance.Zone = r.log, r.settings.Zone
	if c.Client, err = kubernetes.NewForConfig(forWatches(api)); err != nil {
		return nil, fmt.Errorf("prepare the connection to the API servers: %w", err)
	}
	if f.proxy.egress != "" {
		if c.Outbound.Egress, err = egress.Read(f.proxy.egress); err != nil {
			return nil, fmt.Errorf("--egress-selector-config-file: %w", err)
		}
	}
	c.Outbound.Own = r.own(api.Host)
	if err := f.options.Validate(); err != nil {
		return nil, err
	}
	m := &mountedProxy{proxy: &late{config: c}}
	m.Mounted, err = server.NewMounted(server.MountedConfig{
		Options: f.options, Kubeconfig: api, Trust: trust, Log: r.log,
		IsProxy: func(q *http.Request) bool { return apiserverproxy.IsProxyPath(apiserverproxy.BaseCore, q) },
		Proxy:   m.proxy.make,
		IsGone:  apiserverproxy.IsGone,
		Gone:    apiserverproxy.Gone(),
	})
	return m, err
}

// own returns the addresses that no target may have: those of the API server and of the listeners.
func (r *apiserverLBRun) own(apiServer string) func() []netip.AddrPort {
	all := ownAddresses(apiServer, "", 0)
	for _, l := range r.settings.Listeners {
		if at, err := l.AddrPort(); err == nil {
			all = append(all, at)
		}
	}
	return func() []netip.AddrPort { return append(all[:len(all):len(all)], r.lb.Backends()...) }
}

// Run implements apiserverlb.Mounted.
func (m *mountedProxy) Run(ctx context.Context) error {
	if m.proxy.failed != nil {
		return m.proxy.failed
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.proxy.handler.Run(ctx) })
	group.Go(func() error { return m.Mounted.Run(ctx) })
	return group.Wait()
}

// Drain implements apiserverlb.Mounted.
func (m *mountedProxy) Drain(ctx context.Context) error { return m.proxy.drain(ctx) }
