package apiserverproxy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/httpproxy"
	"varco.dev/internal/httpproxy/rewrite"
)

// The headers that only this proxy has.
const (
	// headerBackend names the endpoint that has answered, as address:port.
	headerBackend = "X-Varco-Backend"
	// headerAuthorization of a request is what the target gets as Authorization; that of the client is for the API server.
	headerAuthorization = "X-Backend-Authorization"
)

// forwarding is a request on its way to one of the endpoints.
type forwarding struct {
	h        *Handler
	r        *http.Request // the client's
	a        address.Address
	path     string // at the target
	exchange *balance.Exchange
	upgrade  bool
}

// forward passes the request on to one of the endpoints, and the answer back.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, a address.Address, d *locate.Destination) {
	path := a.Path
	if path == "" {
		path = "/"
	}
	out, err := httpproxy.WithPath(r, path)
	if err != nil {
		h.answers.fail(w, r, err)
		return
	}
	f := &forwarding{h: h, r: r, a: a, path: path, upgrade: httpproxy.WantsUpgrade(r), exchange: h.balancer.Exchange(r, clientOf(r), d)}
	h.proxy.Serve(w, out, httpproxy.Target{
		Scheme: wireScheme(d.Scheme),
		// Each try puts the address of its endpoint here; a target sees what the client has called the API server.
		Host:         d.Name,
		HostHeader:   r.Host,
		RoundTripper: f.exchange.RoundTripper(),
		Upgrade:      f.exchange.Upgrade(),
		Edit:         f.edit,
		EditResponse: f.editResponse,
		Unanswered:   f.unanswered,
	})
}

// wireScheme is the scheme of a target's URL.
func wireScheme(scheme string) string {
	if scheme == locate.H2C {
		return locate.HTTP
	}
	return scheme
}

// edit makes the header that a target sees: nothing in it is a credential for the API server, and what says who is on the
// way here is ours.
func (f *forwarding) edit(out *http.Request) {
	header := out.Header
	delete(header, "Authorization")
	if backend, ok := header[headerAuthorization]; ok {
		header["Authorization"] = backend
		delete(header, headerAuthorization)
	}
	f.h.config.Identity.Strip(header)
	stripBearer(header)
	out.Trailer = nil // some take trailers for more of the header; the original hands on the names alone
	balance.StripCookie(header)
	header["X-Forwarded-Uri"] = []string{f.a.Prefix + f.path}
	header["X-Forwarded-Prefix"] = []string{f.a.Prefix}
	header["X-Forwarded-Proto"] = []string{f.proto()}
	header["X-Forwarded-Host"] = []string{f.r.Host}
}

// bearerProtocol begins a WebSocket's subprotocol that is a token for the API server
// (apiserver/pkg/authentication/request/websocket).
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

// stripBearer removes tokens from the subprotocols that a client offers. Authentication does so too, but only if it was by that
// token: not if there was a client certificate, say.
func stripBearer(header http.Header) {
	const field = "Sec-Websocket-Protocol"
	lines := header[field]
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, bearerProtocol) }) {
		return
	}
	var rest []string
	for _, line := range lines {
		for protocol := range strings.SplitSeq(line, ",") {
			if protocol = strings.TrimSpace(protocol); !strings.HasPrefix(protocol, bearerProtocol) {
				rest = append(rest, protocol)
			}
		}
	}
	delete(header, field)
	if len(rest) > 0 {
		header[field] = []string{strings.Join(rest, ", ")}
	}
}

func (f *forwarding) proto() string {
	if f.r.TLS == nil {
		return "http"
	}
	return "https"
}

// editResponse makes the answer one of ours: its links and cookies lead back here.
func (f *forwarding) editResponse(resp *http.Response) error {
	if f.upgrade && resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode < http.StatusBadRequest {
		// Not even handed back: clients of the original must not take it for an answer (CVE-2018-1002102, CVE-2020-8559).
		return internal(fmt.Errorf("invalid upgrade response: status code %d", resp.StatusCode))
	}
	backend := resp.Request.URL.Host
	// Browsers heed the header of a 101 as well, its cookies above all.
	if err := rewrite.Response(resp, f.page(backend)); err != nil {
		return internal(err)
	}
	for _, name := range [...]string{"Alt-Svc", "Clear-Site-Data", "Nel", "Report-To", "Strict-Transport-Security"} {
		delete(resp.Header, name) // they are about the host: the API server and all other targets as well
	}
	if f.h.config.Aggregated {
		layered(resp.Header, resp.StatusCode, f.r.URL.EscapedPath())
	}
	resp.Header[headerBackend] = []string{backend}
	if cookie := f.exchange.Cookie(f.a.Prefix); cookie != nil {
		resp.Header.Add("Set-Cookie", cookie.String())
	}
	return nil
}

// page is how the client sees what the target has answered. As in the original links are made without scheme and host. The host
// that the aggregation layer asks for is this server's own address in the cluster.
func (f *forwarding) page(backend string) rewrite.Page {
	return rewrite.Page{
		Scheme: f.r.URL.Scheme, Host: f.r.URL.Host, Prefix: f.a.Prefix, Hostless: f.h.config.Aggregated,
		TargetHost: backend, RequestHost: f.r.Host, RequestPath: f.a.Path,
	}
}

func (f *forwarding) unanswered(err error) error { return unanswered(f.upgrade, err) }

// internal is the error of an answer that cannot be passed on: 500, as in the original.
func internal(err error) error {
	if known := apierrors.APIStatus(nil); errors.As(err, &known) {
		return err
	}
	return httpproxy.Status(http.StatusInternalServerError, metav1.StatusReasonUnknown, err.Error())
}

// layered makes an answer pass the aggregation layer unharmed. The layer moves links of text/html and every Location to the
// address that it knows of us, which no client reaches, holds pages until they are complete, and turns redirects into errors
// (CVE-2022-3172). It knows media types in lower case alone, while all others must know them in any (RFC 9110, 8.3.1); it lets
// relative references be; and browsers follow Refresh.
func layered(h http.Header, code int, path string) {
	if media := h.Get("Content-Type"); strings.HasPrefix(media, "text/html") {
		h.Set("Content-Type", "text/HTML"+media[len("text/html"):])
	}
	to := h.Get("Location")
	switch {
	case to == "":
	case code >= 300 && code <= 399:
		h.Del("Location")
		h.Set("Refresh", "0; url="+to)
	case strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//"):
		h.Set("Location", strings.Repeat("../", strings.Count(path, "/")-1)+to[1:])
	}
}
