package origin

import (
	"net/http"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/httpproxy"
)

// backendAuthorization is the header in which a client's Authorization travels over services/proxy. The API server takes
// the Authorization header itself for its own, and does not pass it on.
const backendAuthorization = "X-Backend-Authorization"

// unknownRoute is the route of an origin about which the user may not read anything.
func unknownRoute(at Origin) *route {
	return &route{protocol: protocolOf("", at.Port, number(at.Port)), servicePort: at.Port}
}

// proxied is the way over services/proxy or pods/proxy. It changes the visit's request.
func (v *visit) proxied() (httpproxy.Target, error) {
	if isGRPC(v.r) {
		return httpproxy.Target{}, httpproxy.Status(http.StatusNotImplemented, metav1.StatusReasonMethodNotAllowed,
			v.at.String()+": gRPC needs a tunnel (pods/portforward): services/proxy of the API server speaks HTTP/1.1")
	}
	path := v.r.URL.EscapedPath()
	if !strings.HasPrefix(path, "/") { // http://host without a path, or the * of OPTIONS
		path = "/"
	}
	if climbs(path) {
		return httpproxy.Target{}, httpproxy.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest,
			"the path has .. in it, which could lead out of services/proxy to other parts of the API")
	}
	prefix := v.proxyPath()
	out, err := httpproxy.WithPath(v.r, prefix+path)
	if err != nil {
		return httpproxy.Target{}, err
	}
	out.Header = proxiedHeader(v.r.Header)
	target, err := v.cluster.Target(out, false)
	if err != nil {
		return httpproxy.Target{}, err
	}
	if edit := target.Edit; edit != nil {
		target.Edit = func(out *http.Request) { edit(out); v.forwarded(out) }
	} else {
		target.Edit = v.forwarded
	}
	target.Name = v.at.String() + " over services/proxy"
	target.EditResponse = func(resp *http.Response) error {
		undoPrefix(resp, prefix)
		return v.localize(resp)
	}
	v.r = out
	return target, nil
}

// proxyPath is the path of the proxy subresource, without a slash at its end.
func (v *visit) proxyPath() string {
	resource, name := "services", v.at.Name
	if v.at.Pod {
		resource = "pods"
	}
	if v.route.servicePort != "" {
		name += ":" + v.route.servicePort
	}
	if v.route.protocol == overTLS {
		if v.route.servicePort == "" {
			name += ":"
		}
		name = "https:" + name
	}
	return "/api/v1/namespaces/" + v.at.Namespace + "/" + resource + "/" + name + "/proxy"
}

// proxiedHeader is the client's header with its Authorization where the API server leaves it alone, and without what
// would make the request another user's.
func proxiedHeader(in http.Header) http.Header {
	out := make(http.Header, len(in))
	for key, values := range in {
		switch {
		case key == "Authorization":
			out[backendAuthorization] = values
		case key == backendAuthorization && in["Authorization"] != nil: // one of the two; maps have no order
		case !strings.HasPrefix(key, "Impersonate-"):
			out[key] = values
		}
	}
	return out
}

// climbs says whether somebody on the way could read the path as one that leads up, however often it is escaped.
func climbs(path string) bool {
	for range 3 {
		for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
			if segment == ".." {
				return true
			}
		}
		plain, err := url.PathUnescape(path)
		if err != nil {
			return false
		}
		path = plain
	}
	return false
}

// undoPrefix takes the path of the proxy subresource off where the API server has put it: on redirects and on the links
// of HTML pages (apimachinery, pkg/util/proxy/transport.go).
func undoPrefix(resp *http.Response, prefix string) {
	if at := resp.Header.Get("Location"); at != "" {
		resp.Header.Set("Location", withoutPrefix(at, prefix))
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(kind) == "text/html" && resp.Header.Get("Location") == "" {
		unlink(resp, prefix)
	}
}

// withoutPrefix works on URLs with and without a host: the API server puts none, or its own.
func withoutPrefix(at, prefix string) string {
	u, err := url.Parse(at)
	if err != nil {
		return at
	}
	i := strings.Index(u.EscapedPath(), prefix)
	if i < 0 {
		return at
	}
	rest := u.EscapedPath()[i+len(prefix):]
	if rest != "" && rest[0] != '/' {
		return at
	}
	local := url.URL{RawQuery: u.RawQuery, ForceQuery: u.ForceQuery, Fragment: u.Fragment, RawFragment: u.RawFragment}
	if local.Path, err = url.PathUnescape("/" + strings.TrimPrefix(rest, "/")); err != nil {
		return at
	}
	local.RawPath = "/" + strings.TrimPrefix(rest, "/")
	text := local.String()
	if strings.HasPrefix(text, "//") {
		text = "/." + text // or browsers would read a host
	}
	return text
}
