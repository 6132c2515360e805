// Package mount puts varco apiserver-proxy into the process of the lab's kube-apiserver.
package mount

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"varco.dev/internal/apiserverproxy"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/lab/internal/upstream"
)

// APIServerProxy is varco apiserver-proxy as a guest of kube-apiserver, whose client, kubelet certificate, admission and
// authorizer it uses. The zero value is ready.
type APIServerProxy struct {
	cidrs  []string
	strict bool
}

// AddFlags is in upstream.Guest.
func (p *APIServerProxy) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&p.cidrs, "allow-cidr", nil, "networks of endpoints outside the cluster that may be reached")
	fs.BoolVar(&p.strict, "strict-upgrades", false, "upgrades need the permission to create as well")
}

// Join is in upstream.Guest.
func (p *APIServerProxy) Join(host upstream.Host, next http.Handler) (http.Handler, func(context.Context) error, error) {
	allow, err := prefixes(p.cidrs)
	if err != nil {
		return nil, nil, fmt.Errorf("read --allow-cidr: %w", err)
	}
	conf := rest.CopyConfig(host.Client)
	conf.QPS = -1 // the server asks itself
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return nil, nil, err
	}
	own, err := netip.ParseAddrPort(host.Listens.String())
	if err != nil {
		return nil, nil, fmt.Errorf("read where the server listens: %w", err)
	}
	h, err := apiserverproxy.New(apiserverproxy.Config{
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Client: client, Next: next,
		Admission: host.Admission, Authorizer: host.Authorizer, StrictUpgrades: p.strict,
		Locate: locate.Config{AllowCIDRs: allow, NodeAddressTypes: host.Kubelet.AddressTypes},
		Outbound: outbound.Config{
			Own: func() []netip.AddrPort { return []netip.AddrPort{own} },
			Kubelet: outbound.KubeletConfig{
				CertFile: host.Kubelet.CertFile, KeyFile: host.Kubelet.KeyFile, CAFile: host.Kubelet.CAFile,
			},
		},
	})
	if err != nil {
		return nil, nil, err
	}
	return h, h.Run, nil
}

func prefixes(texts []string) (list []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}
