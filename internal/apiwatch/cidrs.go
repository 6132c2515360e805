package apiwatch

import (
	"context"
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"varco.dev/internal/service"
)

// Pauses before ServiceCIDRs are asked for again: after an API server said that there are none to see, and after one that
// did not answer.
const (
	cidrsAbsentRetry = 10 * time.Minute
	cidrsErrorRetry  = time.Second
)

// serviceCIDRs follows the ServiceCIDRs. API servers before Kubernetes 1.33 have none, and a role may not let them be
// read; then no address counts as one that a Service could have, and the rest works.
func (w *Watcher) serviceCIDRs() feed {
	s := w.cidrSink()
	run := func(ctx context.Context) {
		if !w.untilCIDRs(ctx, s.settle) {
			return
		}
		lw := listWatch(w, "ServiceCIDR", w.config.Client.NetworkingV1().ServiceCIDRs(), metav1.ListOptions{})
		cache.NewReflectorWithOptions(lw, &networkingv1.ServiceCIDR{}, s, options("ServiceCIDR")).RunWithContext(ctx)
	}
	return feed{run, s.synced}
}

// untilCIDRs returns true once ServiceCIDRs can be listed, false if the context ends before. It calls absent when the API
// server says that they cannot; that is not waited for by others. A reflector would ask on and on, and log each time.
func (w *Watcher) untilCIDRs(ctx context.Context, absent func()) bool {
	told := false
	for ctx.Err() == nil {
		w.contact.begin("ServiceCIDR")
		_, err := w.config.Client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{Limit: 1})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
			w.contact.end("ServiceCIDR", nil)
			if !told {
				told = true
				w.config.Log.Info("ServiceCIDRs cannot be read, so addresses that no Service has are left to the routing", "error", err)
			}
			absent()
			pause(ctx, cidrsAbsentRetry)
		case err != nil:
			w.contact.end("ServiceCIDR", err)
			pause(ctx, cidrsErrorRetry)
		default:
			w.contact.end("ServiceCIDR", nil)
			return true
		}
	}
	return false
}

// cidrSink keeps the networks of each object, and tells the table all of them.
func (w *Watcher) cidrSink() *sink[*networkingv1.ServiceCIDR, []netip.Prefix] {
	s := newSink(w, "ServiceCIDR", func(obj *networkingv1.ServiceCIDR) ([]netip.Prefix, bool, []error) {
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
	s.set = func(n service.Name, v []netip.Prefix) {
		known[n] = v
		tell()
	}
	s.del = func(n service.Name) {
		delete(known, n)
		tell()
	}
	s.replace = func(all []item[[]netip.Prefix]) {
		clear(known)
		for _, i := range all {
			known[i.name] = i.value
		}
		tell()
	}
	return s
}

// pause waits, but not beyond the end of the context.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
