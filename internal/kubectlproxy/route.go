package kubectlproxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/kubectlproxy/guard"
	"varco.dev/internal/kubectlproxy/origin"
	"varco.dev/internal/kubectlproxy/ui"
	"varco.dev/internal/observe"
)

// route serves the paths that begin with prefix. rest is what follows it in the escaped path, with a slash before.
type route struct {
	prefix string // begins and ends with a slash
	serve  func(w http.ResponseWriter, r *http.Request, rest string)
}

// routes are where paths go: to the longest prefix that fits, as with http.ServeMux. Unlike there, nothing is cleaned, and
// prefixes are compared in their escaped form, so that a path reaches the API server as it was sent.
type routes struct {
	byLength []route      // longest prefix first
	page     http.Handler // of "/", and of what it loads; nil: "/" is no page
}

// newRoutes serves the API, unless its prefix begins with "/api", without that prefix: kubectl proxy's rule.
func (p *Proxy) newRoutes() routes {
	c := p.config
	var rs routes
	strip := !strings.HasPrefix(c.APIPrefix, "/api")
	rs.byLength = append(rs.byLength, route{c.APIPrefix, func(w http.ResponseWriter, r *http.Request, rest string) {
		if !strip {
			rest = r.URL.EscapedPath()
		}
		p.serveAPI(w, r, "", rest)
	}})
	if c.StaticDir != "" {
		files := http.FileServer(http.Dir(c.StaticDir))
		rs.byLength = append(rs.byLength, route{c.StaticPrefix, func(w http.ResponseWriter, r *http.Request, rest string) {
			p.serveLocal(w, r, guard.Static, rest, files)
		}})
	}
	if c.Clusters.Contexts != nil {
		rs.byLength = append(rs.byLength, route{clustersPrefix, p.serveContext})
	}
	if c.showsPage() {
		rs.page = ui.Handler(p.info)
		rs.byLength = append(rs.byLength, route{ui.AssetPrefix, func(w http.ResponseWriter, r *http.Request, _ string) {
			p.serveLocal(w, r, guard.Page, r.URL.EscapedPath(), rs.page)
		}})
	}
	slices.SortStableFunc(rs.byLength, func(a, b route) int { return cmp.Compare(len(b.prefix), len(a.prefix)) })
	return rs
}

// clustersPrefix is where contexts are served by name.
const clustersPrefix = "/clusters/"

// handler is all that a client can reach.
func (p *Proxy) handler() http.Handler {
	return observe.Access(p.config.Log, p.metrics.access, http.HandlerFunc(p.serveHTTP))
}

func (p *Proxy) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if err := p.checkUser(r); err != nil {
		w.Header().Set("Connection", "close") // others' connections shall not take the places of this user's
		p.fail(w, r, err)
		return
	}
	at, service, err := origin.Parse(r.Host)
	if err != nil {
		p.fail(w, r, httpproxy.Status(http.StatusBadRequest, "", err.Error()))
		return
	}
	httpproxy.KeepEscapes(r.URL)
	next, err := p.guard.TakeToken(w, r)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if next == nil {
		httpproxy.LeaveBody(w, r)
		return
	}
	switch r = next; {
	case service && p.config.Services == ServicesOff:
		p.fail(w, r, &guard.Refusal{Rule: "services", Code: http.StatusForbidden, Message: "Services have no host names here: start without --services off"})
	case service:
		p.serveService(w, r, at)
	default:
		p.servePath(w, r)
	}
}

// checkUser refuses other users of this computer, if asked to. Whoever cannot be told is another user.
func (p *Proxy) checkUser(r *http.Request) error {
	if !p.config.SameUser {
		return nil
	}
	user, ok := r.Context().Value(userKey{}).(user)
	if !ok {
		user.err = errors.ErrUnsupported // the zero value would be root
	}
	if user.err == nil && int(user.uid) == os.Geteuid() {
		return nil
	}
	message := fmt.Sprintf("only user %d may use this proxy (--same-user); this connection is of user %d", os.Geteuid(), user.uid)
	if user.err != nil {
		message = fmt.Sprintf("only user %d may use this proxy (--same-user); whose connection this is cannot be told: %v", os.Geteuid(), user.err)
	}
	return &guard.Refusal{Rule: "same-user", Code: http.StatusForbidden, Message: message}
}

func (p *Proxy) serveService(w http.ResponseWriter, r *http.Request, at origin.Origin) {
	if err := p.guard.Check(r, guard.Service, at.APIPath()); err != nil {
		p.fail(w, r, err)
		return
	}
	p.origins.Serve(w, r, at)
}

func (p *Proxy) servePath(w http.ResponseWriter, r *http.Request) {
	path := cmp.Or(r.URL.EscapedPath(), "/") // CONNECT has none
	if path == "/" && p.routes.page != nil {
		p.serveLocal(w, r, guard.Page, path, p.routes.page)
		return
	}
	for _, to := range p.routes.byLength {
		if rest, ok := strings.CutPrefix(path, to.prefix); ok {
			to.serve(w, r, "/"+rest)
			return
		}
		if path+"/" == to.prefix {
			to := &url.URL{Path: to.prefix, RawQuery: r.URL.RawQuery}
			p.serveLocal(w, r, guard.Page, path, http.RedirectHandler(to.String(), http.StatusTemporaryRedirect))
			return
		}
	}
	p.serveLocal(w, r, guard.Page, path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, r, httpproxy.Status(http.StatusNotFound, "NotFound", fmt.Sprintf("nothing is served at %s: the API is at %s", path, p.config.APIPrefix)))
	}))
}

// serveLocal serves what does not come from a cluster, under the same filter as what does.
func (p *Proxy) serveLocal(w http.ResponseWriter, r *http.Request, place guard.Place, path string, from http.Handler) {
	if err := p.guard.Check(r, place, r.URL.EscapedPath()); err != nil {
		p.fail(w, r, err)
		return
	}
	next, err := httpproxy.WithPath(r, path)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	httpproxy.LeaveBody(w, r)
	from.ServeHTTP(w, next)
}

// serveContext serves /clusters/<context>/<path>. Slashes in the name of a context are written %2F; where that is not
// possible, as in a kubeconfig (client-go unescapes it), its label takes the place of the name.
func (p *Proxy) serveContext(w http.ResponseWriter, r *http.Request, rest string) {
	segment, path, _ := strings.Cut(rest[1:], "/")
	name, err := url.PathUnescape(segment)
	if err != nil || name == "" {
		p.fail(w, r, httpproxy.Status(http.StatusBadRequest, "BadRequest", "write /clusters/CONTEXT/PATH, with slashes in the context's name as %2F"))
		return
	}
	p.serveAPI(w, r, name, "/"+path)
}

// serveAPI passes a request on to the API server of a context, at this escaped path.
func (p *Proxy) serveAPI(w http.ResponseWriter, r *http.Request, context, path string) {
	if err := p.guard.Check(r, guard.API, path); err != nil {
		p.fail(w, r, err)
		return
	}
	to, err := p.clusters.Get(context)
	if apierrors.IsNotFound(err) {
		to, err = p.clusters.ByLabel(context)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	next, err := httpproxy.WithPath(r, path)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	long := guard.LongRunning(next, path)
	target, err := to.Target(next, long)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if p.config.MaxBodyBytes > 0 && !guard.ThroughProxy(next, path) { // what goes through the API server is not for it to store
		target.MaxBody = p.config.MaxBodyBytes
	}
	if long {
		next = httpproxy.LongRunning(next)
	}
	p.pass.Serve(w, next, target)
}

// fail answers with an error, and counts what was refused.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	if refusal, ok := err.(*guard.Refusal); ok {
		p.metrics.refused.WithLabelValues(refusal.Rule).Inc()
		p.config.Log.Debug("refused", "method", r.Method, "host", r.Host, "rule", refusal.Rule) // the access log has the path
		err = refusal.Status()
	}
	httpproxy.Fail(w, r, err)
}

// info is what the start page knows of this proxy.
func (p *Proxy) info(*http.Request) ui.Info {
	g := p.config.Guard
	i := ui.Info{
		Version: p.config.Version, APIPrefix: p.config.APIPrefix, Cluster: p.clusters.Current(),
		Token: g.Token, ReadOnly: g.ReadOnly, Refused: p.guard.Closed(), Denied: g.Deny,
	}
	if p.config.Services != ServicesOff {
		i.OriginDomain = "localhost"
	}
	if p.config.Clusters.Contexts != nil {
		for _, c := range p.clusters.Contexts() {
			i.Contexts = append(i.Contexts, ui.Context{Name: c.Name, Label: c.Label, Current: c.Current})
		}
	}
	return i
}
