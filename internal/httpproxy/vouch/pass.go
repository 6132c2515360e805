package vouch

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
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/httpproxy/identity"
)

// PassConfig is what NewPass wants to know.
type PassConfig struct {
	Trust  *Trust           // who clients with certificates are; required
	Origin *Origin          // required
	Proxy  *httpproxy.Proxy // passes requests on; required
	// Unknown answers clients whose certificate is of nobody that is known, and who have no token. Required.
	Unknown http.Handler
	// CertFile and KeyFile are the front-proxy client certificate, in PEM: one of the authority that the API server has as
	// --requestheader-client-ca-file, with a name that its --requestheader-allowed-names allow. Whoever holds the key is
	// anybody in the cluster. Empty: client certificates cannot be carried over.
	CertFile, KeyFile string
	// Spread chooses among several API servers for each request. nil: all go to the origin.
	Spread Spread
	Words  Words
	Log    *slog.Logger // required
}

// Spread chooses an API server for each request.
type Spread interface {
	// Over returns what sends one request, by the given lane, to an API server that it chooses: by its host in the URL. It keeps
	// path, headers and body. The request is the client's. It is called once for each request, from its goroutine.
	Over(lane http.RoundTripper, r *http.Request, k Kind) http.RoundTripper
}

// Kind is how a request is answered.
type Kind uint8

// The kinds.
const (
	Ordinary  Kind = iota
	Watching       // events, until someone ends it; its client comes back then
	Following      // a log that grows, until someone ends it
	Upgrading      // another protocol
)

// Pass hands requests to an API server. It never lends them anything of this server's own but the front-proxy certificate,
// and that only to clients whose certificate was verified, under the names that it says.
type Pass struct {
	config PassConfig
	infos  *request.RequestInfoFactory
	lanes  atomic.Pointer[passLanes]
}

type passLanes struct {
	plain      *lanes              // nil: nothing can be passed on
	identified *lanes              // nil: there is no front-proxy certificate
	chain      []*x509.Certificate // of the front-proxy certificate
	vouching   atomic.Pointer[vouching]
}

// NewPass returns a Pass that passes nothing on before Load is called.
func NewPass(c PassConfig) *Pass {
	p := &Pass{config: c, infos: NewInfos()}
	p.Unload()
	return p
}

// NewInfos returns how kube-apiserver reads a path.
func NewInfos() *request.RequestInfoFactory {
	return &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
}

// Load makes transports with the files as they are now. Requests that are being served keep theirs.
func (p *Pass) Load() error {
	next, err := p.config.Origin.lanes(p.config.CertFile, p.config.KeyFile)
	if err != nil {
		return err
	}
	p.swap(next)
	return nil
}

// Unload has nothing passed on any more (503), and closes connections that are idle.
func (p *Pass) Unload() { p.swap(&passLanes{}) }

// Files returns the names of those that Load reads; some may be empty.
func (p *Pass) Files() []string {
	return []string{p.config.CertFile, p.config.KeyFile, p.config.Origin.config.CAFile}
}

func (p *Pass) swap(next *passLanes) {
	if old := p.lanes.Swap(next); old != nil {
		old.plain.close()
		old.identified.close()
	}
}

// ServeHTTP implements http.Handler.
func (p *Pass) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := check(r); err != nil {
		httpproxy.Fail(w, r, err)
		return
	}
	l := p.lanes.Load()
	if l.plain == nil {
		httpproxy.Fail(w, r, httpproxy.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the server has not started yet, or is ending"))
		return
	}
	v := p.config.Trust.judge(r)
	who, err := p.config.Trust.named(v, r)
	switch {
	case who == nil && err != nil && !hasToken(r):
		p.config.Log.Debug("a client certificate was refused", "remote", r.RemoteAddr, "error", err)
		p.config.Unknown.ServeHTTP(w, r)
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
func (p *Pass) as(w http.ResponseWriter, r *http.Request, l *passLanes, fields http.Header, err error) {
	if err == nil && l.identified == nil {
		err = errors.New("client certificates are not carried over to the API server here, since " + p.config.Words.FrontProxy + " is missing: use a token")
	}
	if err == nil {
		err = p.mayVouch(l)
	}
	if err != nil {
		httpproxy.Fail(w, r, httpproxy.Status(http.StatusForbidden, metav1.StatusReasonForbidden, err.Error()))
		return
	}
	names := p.config.Trust.now.Load().headers
	p.send(w, r, l.identified, true, func(out *http.Request) {
		names.Strip(out.Header)
		delete(out.Header, "Authorization") // of two credentials the API server takes the certificate, too
		maps.Copy(out.Header, fields)
		stripTrailers(out, names)
		p.place(out)
	})
}

// asIs passes a request on with the client's own credentials, or none.
func (p *Pass) asIs(w http.ResponseWriter, r *http.Request, l *passLanes) {
	names := p.config.Trust.now.Load().headers
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
func (p *Pass) send(w http.ResponseWriter, r *http.Request, l *lanes, known bool, edit func(*http.Request)) {
	kind := kindOf(p.infos, r)
	lane := l.ordinary
	if kind == Watching || kind == Following {
		r = httpproxy.LongRunning(r)
		if known {
			lane = l.lasting
		}
	}
	t := p.target(r, edit)
	if spread := p.config.Spread; spread == nil {
		t.RoundTripper, t.Upgrade = lane, l.upgrading
	} else if httpproxy.WantsUpgrade(r) {
		t.Upgrade = spread.Over(l.upgrading, r, Upgrading)
	} else {
		t.RoundTripper = spread.Over(lane, r, kind)
	}
	if r.ProtoMajor == 2 {
		t.EditResponse = func(resp *http.Response) error {
			if resp.StatusCode == http.StatusUnauthorized {
				w.Header().Set("Connection", "close")
			}
			return nil
		}
	}
	p.config.Proxy.Serve(w, r, t)
}

// target returns the API server, or one that Spread will replace, and with which it keeps the client's Host.
func (p *Pass) target(r *http.Request, edit func(*http.Request)) httpproxy.Target {
	server := p.config.Origin.server
	t := httpproxy.Target{Name: "the API server " + server.Host, Scheme: server.Scheme, Host: server.Host, Edit: edit}
	if p.config.Spread != nil {
		t.Name, t.HostHeader = "an API server", r.Host
	}
	return t
}

// place puts the path of the API server's URL before that of the request, as a server behind another proxy needs.
func (p *Pass) place(out *http.Request) {
	prefix := strings.TrimRight(p.config.Origin.server.EscapedPath(), "/")
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

// kindOf says how a request is answered that wants no upgrade, and with it whether the answer lasts until someone ends it: a
// watch, or a log that is followed.
func kindOf(infos *request.RequestInfoFactory, r *http.Request) Kind {
	q := r.URL.RawQuery
	if !strings.Contains(q, "watch") && !strings.Contains(q, "follow") && !strings.Contains(r.URL.Path, "/watch/") {
		return Ordinary
	}
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		return Ordinary
	}
	switch follow := r.URL.Query()["follow"]; {
	case info.Verb == "watch":
		return Watching
	case info.Resource != "pods" || info.Subresource != "log" || len(follow) == 0:
		return Ordinary
	case follow[0] != "false" && follow[0] != "0": // as the API server reads a bool (conversion)
		return Following
	}
	return Ordinary
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
