package apiwatch

import (
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// cidrsAbsentRetry is the pause before ServiceCIDRs are asked for again after an API server said that there are none to see.
const cidrsAbsentRetry = 10 * time.Minute

// serviceCIDRs follows the ServiceCIDRs. API servers before Kubernetes 1.33 have none, and a role may not let them be
// read; then no address counts as one that a Service could have, and the rest works.
func (w *Watcher) serviceCIDRs() feed.Feed {
	client := w.config.Client.NetworkingV1().ServiceCIDRs()
	return feed.Optional(w.source, w.cidrSink(), &networkingv1.ServiceCIDR{}, client, metav1.ListOptions{}, cidrsAbsentRetry, func(err error) {
		w.config.Log.Info("ServiceCIDRs cannot be read, so addresses that no Service has are left to the routing", "error", err)
	})
}

// cidrSink keeps the networks of each object, and tells the table all of them.
func (w *Watcher) cidrSink() *feed.Sink[*networkingv1.ServiceCIDR, []netip.Prefix] {
	s := feed.NewSink(w.source, "ServiceCIDR", func(obj *networkingv1.ServiceCIDR) ([]netip.Prefix, bool, []error) {
		out, problems := CIDRs(obj)
		return out, true, problems
	})
	known := map[service.Name][]netip.Prefix{} // only the reflector's goroutine uses it
	tell := func() {
		var all []netip.Prefix
		for _, cidrs := range known {
			all = append(all, cidrs...)
		}
		w.config.Update(func(t *service.Table) { t.SetCIDRs(all) })
	}
	s.Set = func(n service.Name, v []netip.Prefix) {
		known[n] = v
		tell()
	}
	s.Del = func(n service.Name) {
		delete(known, n)
		tell()
	}
	s.Replace = func(all []feed.Item[[]netip.Prefix]) {
		clear(known)
		for _, i := range all {
			known[i.Name] = i.Value
		}
		tell()
	}
	return s
}
