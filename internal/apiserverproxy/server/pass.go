package server

import (
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/httpproxy/identity"
)

// pass hands requests to the API server. It never lends them anything of this server's own but the front-proxy certificate,
// and that only to clients whose certificate was verified, under the names that it says.
type pass struct {
	log      *slog.Logger
	origin   *origin
	proxy    *httpproxy.Proxy
	trust    *trust
	infos    *request.RequestInfoFactory
	unknown  http.Handler // upstream's answer to whom it does not know
	certFile string
	keyFile  string
	lanes    atomic.Pointer[passLanes]
}

type passLanes struct {
	plain      *lanes              // nil: nothing can be passed on
	identified *lanes              // nil: there is no front-proxy certificate
	chain      []*x509.Certificate // of the front-proxy certificate
	vouching   atomic.Pointer[vouching]
}

// load makes transports with the files as they are now. Requests that are being served keep theirs.
func (p *pass) load() error {
	next, err := p.origin.lanes(p.certFile, p.keyFile)
	if err != nil {
		return err
	}
	p.swap(next)
	return nil
}

func (p *pass) swap(next *passLanes) {
	if old := p.lanes.Swap(next); old != nil {
		old.plain.close()
		old.identified.close()
	}
}

// ServeHTTP implements http.Handler.
func (p *pass) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := check(r); err != nil {
		httpproxy.Fail(w, r, err)
		return
	}
	l := p.lanes.Load()
	if l.plain == nil {
		httpproxy.Fail(w, r, httpproxy.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the server has not started yet, or is ending"))
		return
	}
	v := p.trust.judge(r)
	who, err := p.trust.named(v, r)
	switch {
	case who == nil && err != nil && !hasToken(r):
		p.log.Debug("a client certificate was refused", "remote", r.RemoteAddr, "error", err)
		p.unknown.ServeHTTP(w, r)
	case who == nil:
		p.asIs(w, r, l)
	case who == v.client:
		p.as(w, r, l, v.fields, v.unsaid)
	default:
		fields, err := v.by.fields(who.User)
		p.as(w, r, l, fields, err)
	}
}

// as passes a request on as that of a client whose identity this server vouches for.
func (p *pass) as(w http.ResponseWriter, r *http.Request, l *passLanes, fields http.Header, err error) {
	if err == nil && l.identified == nil {
		err = errors.New("client certificates are not carried over to the API server here, since --proxy-client-cert-file is missing: use a token")
	}
	if err == nil {
		err = p.mayVouch(l)
	}
	if err != nil {
		httpproxy.Fail(w, r, httpproxy.Status(http.StatusForbidden, metav1.StatusReasonForbidden, err.Error()))
		return
	}
	names := p.trust.now.Load().headers
	p.send(w, r, l.identified, true, func(out *http.Request) {
		names.Strip(out.Header)
		delete(out.Header, "Authorization") // of two credentials the API server takes the certificate, too
		maps.Copy(out.Header, fields)
		stripTrailers(out, names)
		p.place(out)
	})
}

// asIs passes a request on with the client's own credentials, or none.
func (p *pass) asIs(w http.ResponseWriter, r *http.Request, l *passLanes) {
	names := p.trust.now.Load().headers
	credentials := hasToken(r)
	if !credentials && r.ProtoMajor == 2 {
		w.Header().Set("Connection", "close") // CVE-2023-44487: strangers get no connections to keep, as upstream (KEP-4018)
	}
	p.send(w, r, l.plain, credentials, func(out *http.Request) {
		names.Strip(out.Header)
		stripTrailers(out, names)
		p.place(out)
	})
}

// send passes a request on. The API server closes connections of HTTP/2 on which strangers ask, so that they do not share
// those of others.
func (p *pass) send(w http.ResponseWriter, r *http.Request, l *lanes, known bool, edit func(*http.Request)) {
	t := httpproxy.Target{
		Name: "the API server " + p.origin.server.Host, Scheme: p.origin.server.Scheme, Host: p.origin.server.Host,
		RoundTripper: l.ordinary, Upgrade: l.upgrading, Edit: edit,
	}
	if lasts(p.infos, r) {
		r = httpproxy.LongRunning(r)
		if known {
			t.RoundTripper = l.lasting
		}
	}
	if r.ProtoMajor == 2 {
		t.EditResponse = func(resp *http.Response) error {
			if resp.StatusCode == http.StatusUnauthorized {
				w.Header().Set("Connection", "close")
			}
			return nil
		}
	}
	p.proxy.Serve(w, r, t)
}

// place puts the path of the API server's URL before that of the request, as a server behind another proxy needs.
func (p *pass) place(out *http.Request) {
	prefix := strings.TrimRight(p.origin.server.EscapedPath(), "/")
	if prefix == "" {
		return
	}
	plain, err := url.PathUnescape(prefix)
	if err != nil {
		plain = prefix // cannot be: EscapedPath is an encoding
	}
	out.URL.RawPath = prefix + out.URL.EscapedPath()
	out.URL.Path = plain + out.URL.Path
}

// lasts says whether the answer lasts until someone ends it: a watch, or a log that is followed.
func lasts(infos *request.RequestInfoFactory, r *http.Request) bool {
	q := r.URL.RawQuery
	if !strings.Contains(q, "watch") && !strings.Contains(q, "follow") && !strings.Contains(r.URL.Path, "/watch/") {
		return false
	}
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		return false
	}
	switch follow := r.URL.Query()["follow"]; {
	case info.Verb == "watch":
		return true
	case info.Resource != "pods" || info.Subresource != "log" || len(follow) == 0:
		return false
	default:
		return follow[0] != "false" && follow[0] != "0" // as the API server reads a bool (conversion)
	}
}

// hasToken says whether the request has a bearer token, right or wrong, where upstream looks for one.
func hasToken(r *http.Request) bool {
	if auth := textproto.TrimString(r.Header.Get("Authorization")); auth != "" {
		scheme, token, _ := strings.Cut(auth, " ")
		if strings.EqualFold(scheme, "bearer") && token != "" && token[0] != ' ' {
			return true
		}
	}
	if r.Header["Sec-Websocket-Protocol"] == nil || !wsstream.IsWebSocketRequest(r) {
		return false
	}
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		if strings.Contains(line, "base64url.bearer.authorization.k8s.io.") {
			return true
		}
	}
	return false
}

// check refuses requests that the API server might take for something else.
func check(r *http.Request) error {
	if path := r.URL.Path; path != "" && path[0] != '/' { // "*", which is also how HTTP/2 begins where nobody agreed on it
		return httpproxy.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, "the path must begin with /")
	}
	return checkConnection(r.Header)
}

// checkConnection refuses a Connection field that names fields which decide who somebody is. A proxy has to drop what it
// names (RFC 9110, 7.6.1): whoever stands before this server and adds such a field to a request of his client's, would
// otherwise have it dropped by that client, and the request be served as his own.
func checkConnection(h http.Header) error {
	for _, line := range h["Connection"] {
		if line == "keep-alive" || line == "close" || line == "Upgrade" {
			continue
		}
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			if name == "Authorization" || strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "X-Forwarded-") || identity.Default().Has(name) {
				return httpproxy.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest,
					"the Connection field must not name "+name+", which is not about one connection")
			}
		}
	}
	return nil
}

// stripTrailers has trailers passed on without identities. Nobody should look for one there.
func stripTrailers(out *http.Request, names identity.Headers) {
	if out.Trailer == nil {
		return
	}
	from, to := out.Trailer, http.Header{}
	for name := range from {
		if !names.Has(name) {
			to[name] = nil
		}
	}
	out.Trailer = to
	out.Body = &trailed{ReadCloser: out.Body, from: from, to: to}
}

// trailed is a body that fills in the trailers when it ends.
type trailed struct {
	io.ReadCloser
	from, to http.Header
}

// Read implements io.Reader.
func (b *trailed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name := range b.to {
			b.to[name] = b.from[name]
		}
	}
	return n, err
}

// stranger returns upstream's answer to whom it does not know. It is audited: the API server does not see such a request.
func stranger(c *chain) http.Handler {
	refusing := *c
	refusing.authn = nobody{}
	return refusing.build(http.NotFoundHandler(), true)
}

// nobody authenticates no request.
type nobody struct{}

// AuthenticateRequest implements authenticator.Request.
func (nobody) AuthenticateRequest(*http.Request) (*authenticator.Response, bool, error) {
	return nil, false, nil
}
