package origin

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/kubectlproxy/cluster"
)

// visit is one request to an origin.
type visit struct {
	origins *Origins
	cluster *cluster.Cluster
	at      Origin
	r       *http.Request
	route   *route
	failed  []endpoint // found dead
	held    []*tunnel  // until the request ends
}

// end gives the tunnels back.
func (v *visit) end() {
	for _, t := range v.held {
		t.release()
	}
}

func (v *visit) mode() string { return v.origins.config.Mode }

func (v *visit) key() routeKey { return routeKey{v.cluster.Config, v.at} }

// lookup finds out where the origin leads now.
func (v *visit) lookup() error {
	found, err := v.origins.routes.lookup(v.r.Context(), v.key(), reader(v.cluster))
	if err == nil {
		v.route = found
	}
	return err
}

// target decides how the request travels. What cannot be decided before a tunnel is open, is decided with one open, so
// that nothing of the request has been sent yet.
func (v *visit) target() (httpproxy.Target, error) {
	if err := v.lookup(); err != nil {
		if v.mode() != ModeTunnel && apierrors.IsForbidden(err) {
			v.route = unknownRoute(v.at) // users of services/proxy need not be allowed to read Services
			return v.proxied()
		}
		return httpproxy.Target{}, err
	}
	if len(v.route.endpoints) == 0 && !(v.route.podless && v.mode() != ModeTunnel) {
		return httpproxy.Target{}, v.nobody()
	}
	if len(v.route.endpoints) == 0 || v.mode() == ModeProxy || v.mode() == ModeAuto && v.origins.refusals.has(v.cluster.Config, v.at.Namespace) {
		return v.proxied()
	}
	first, err := v.reach()
	if err != nil && v.mode() == ModeAuto && refused(err) {
		v.origins.config.Log.Info("tunnels are refused; Services are reached over services/proxy, without Authorization headers and HTTP/2",
			"context", v.cluster.Name, "namespace", v.at.Namespace, "for", RefusalTTL, "error", err)
		v.origins.refusals.add(v.cluster.Config, v.at.Namespace)
		return v.proxied()
	}
	if err != nil {
		return httpproxy.Target{}, v.explain(err)
	}
	return v.tunnelled(first), nil
}

// maxDials is how many endpoints are tried for one request.
const maxDials = 3

// reach opens a tunnel to one of the endpoints, or finds an open one; if that fails because of the endpoint, another one
// is tried. Endpoints that this request has found dead are left out.
func (v *visit) reach() (place, error) {
	err := v.nobody()
	for range maxDials {
		to, ok := v.choose()
		if !ok {
			break
		}
		var t *tunnel
		if t, err = v.origins.tunnels.get(v.r.Context(), tunnelKey{v.cluster.Config, to.podName}); err == nil {
			v.held = append(v.held, t)
			return place{to, t}, nil
		}
		if refused(err) || errors.Is(err, errTooManyTunnels) || errors.Is(err, errEnding) || v.r.Context().Err() != nil {
			break
		}
		if v.dead(to) != nil {
			break
		}
	}
	return place{}, err
}

// dead leaves an endpoint out from now on, and asks for what has taken its place.
func (v *visit) dead(to endpoint) error {
	v.failed = append(v.failed, to)
	v.origins.routes.forget(v.key())
	return v.lookup()
}

// place is an endpoint and a tunnel to its pod.
type place struct {
	endpoint
	tunnel *tunnel
}

func (v *visit) choose() (endpoint, bool) {
	client, _, _ := net.SplitHostPort(v.r.RemoteAddr)
	return v.route.choose(v.origins.routes.seed, client, v.failed)
}

// tunnelled is the way through a tunnel, with the request as the client has sent it.
func (v *visit) tunnelled(first place) httpproxy.Target {
	return httpproxy.Target{
		Name: v.at.String(), Scheme: v.route.protocol.scheme(), Host: v.route.host, HostHeader: v.r.Host,
		RoundTripper: &carrier{visit: v, next: first}, Upgrade: &carrier{visit: v, next: first, upgrade: true},
		Edit: v.forwarded, EditResponse: v.localize,
	}
}

// forwarded says how the client sees the app. A client's own words on that are replaced: it is the first hop.
func (v *visit) forwarded(out *http.Request) {
	out.Header["X-Forwarded-Host"] = []string{v.r.Host}
	out.Header["X-Forwarded-Proto"] = []string{v.scheme()}
}

// scheme is that of the URL in the browser.
func (v *visit) scheme() string {
	if v.r.TLS != nil {
		return "https"
	}
	return "http"
}

// nobody says that no endpoint is ready, and where to look.
func (v *visit) nobody() error {
	why := "no pod behind it is ready"
	if v.route.podless {
		why = "its endpoints are no pods, and a tunnel leads to a pod; --services=auto reaches them over services/proxy"
	}
	return httpproxy.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, fmt.Sprintf(
		"%s cannot be reached: %s. See kubectl get endpointslices --namespace %s --selector kubernetes.io/service-name=%s",
		v.at, why, v.at.Namespace, v.at.Name))
}

// explain gives an error of a tunnel that was not opened a code. The API server's own are handed on.
func (v *visit) explain(err error) error {
	if errors.Is(err, errTooManyTunnels) || errors.Is(err, errEnding) {
		return httpproxy.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, fmt.Sprintf("%s: %v", v.at, err))
	}
	return fmt.Errorf("opening a tunnel to %s: %w", v.at, statusCause(err))
}
