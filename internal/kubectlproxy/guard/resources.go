package guard

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// infos reads paths as the API server does.
var infos = request.RequestInfoFactory{
	APIPrefixes:          map[string]sets.Empty{"api": {}, "apis": {}},
	GrouplessAPIPrefixes: map[string]sets.Empty{"api": {}},
}

// notResources are the first segments of the API server's paths that name no object. --deny does not look for names in
// them: kubectl explain asks for /openapi/v3/apis/apps/v1.
var notResources = []string{"", "api", "apis", "openapi", "version", "healthz", "livez", "readyz", "metrics",
	".well-known", "openid", "flagz", "statusz"}

// judgeResource looks at what the API server would call the request. Without doubt it goes on only if that is fine in
// each form of its path.
func (g *Guard) judgeResource(r *http.Request, f forms, place Place) *Refusal {
	byReads := g.readOnly && place == API
	query := "" // it only tells a watch from a list, which matters to upgrades; reading it takes microseconds
	if mayUpgrade(r) {
		query = r.URL.RawQuery
	}
	for i, p := range f.all {
		info, err := requestInfo(r.Method, p, query)
		if err != nil || i == 0 && (f.tooMany || f.doubt || !isClear(p, info)) {
			return forbid(g.strictRule(), "path cannot be read without doubt, which --%s does not let pass", g.strictRule())
		}
		if denied := g.denies(info, p); denied != "" {
			return forbid(ruleDeny, "path is for what --deny %s denies", denied)
		}
		if byReads && !readsOnly(r, info) {
			return forbid(ruleReadOnly, "%s is no reading of the API, and the proxy is --read-only", nameOf(r, info))
		}
	}
	return nil
}

// strictRule is the flag that a request in doubt fails.
func (g *Guard) strictRule() string {
	if len(g.deny) > 0 {
		return ruleDeny
	}
	return ruleReadOnly
}

// requestInfo reads a decoded path. A path without leading slash is read as with one.
func requestInfo(method, p, query string) (*request.RequestInfo, error) {
	seen := http.Request{Method: method, URL: &url.URL{Path: p, RawQuery: query}}
	return infos.NewRequestInfo(&seen)
}

// isClear says whether all servers read the part of a path that names an object alike: no bytes that one could take for
// a slash, an escape or an end. What an application gets through proxy is its own matter.
func isClear(p string, info *request.RequestInfo) bool {
	if info.IsResourceRequest && info.Subresource == "proxy" {
		p = strings.TrimSuffix(strings.TrimRight(p, "/"), strings.Join(info.Parts[3:], "/"))
	}
	for i := 0; i < len(p); i++ {
		if c := p[i]; c < ' ' || c >= 0x7f || strings.IndexByte(`%\?#;`, c) >= 0 {
			return false
		}
	}
	return true
}

// denies returns the rule that covers the request, "" if none does.
func (g *Guard) denies(info *request.RequestInfo, p string) string {
	if len(g.deny) == 0 {
		return ""
	}
	segments := strings.Split(strings.Trim(p, "/"), "/")
	loose := !info.IsResourceRequest && !slices.Contains(notResources, segments[0])
	for _, r := range g.deny {
		if info.IsResourceRequest && r.covers(info) || loose && r.matchesLoosely(segments) {
			return r.text
		}
	}
	return ""
}

// nameOf calls a request by what the API server would authorize.
func nameOf(r *http.Request, info *request.RequestInfo) string {
	if !info.IsResourceRequest {
		return r.Method
	}
	name := info.Resource
	if info.Subresource != "" {
		name += "/" + info.Subresource
	}
	if mayUpgrade(r) {
		return "an upgrade for " + name
	}
	return strings.TrimSpace(info.Verb+" ") + " of " + name
}
