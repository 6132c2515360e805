package guard

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// reviews are what a user may ask about themself. They are created, and nothing is kept of them.
var reviews = map[string][]string{
	"authorization.k8s.io":  {"selfsubjectaccessreviews", "selfsubjectrulesreviews"},
	"authentication.k8s.io": {"selfsubjectreviews"},
}

// judgeReads is --read-only for places without the API's verbs.
func (g *Guard) judgeReads(r *http.Request) *Refusal {
	if isSafe(r.Method) && !mayUpgrade(r) {
		return nil
	}
	what := r.Method
	if mayUpgrade(r) {
		what = "an upgrade"
	}
	return forbid(ruleReadOnly, "%s is no reading, and the proxy is --read-only", what)
}

// readsOnly says whether the request only reads the API: get, list, watch, OPTIONS, and questions about oneself. A watch
// may be a WebSocket; nothing else may upgrade, since what goes through it cannot be seen.
func readsOnly(r *http.Request, info *request.RequestInfo) bool {
	if mayUpgrade(r) {
		return r.Method == http.MethodGet && info.IsResourceRequest && info.Verb == "watch" && info.Subresource == ""
	}
	if !info.IsResourceRequest {
		return isSafe(r.Method)
	}
	switch r.Method {
	case http.MethodOptions:
		return true
	case http.MethodGet, http.MethodHead:
		return slices.Contains([]string{"get", "list", "watch"}, info.Verb) && !runs(info)
	case http.MethodPost:
		return asksAboutSelf(info)
	}
	return false
}

// runs says whether a GET would run something in a pod.
func runs(info *request.RequestInfo) bool {
	return slices.Contains([]string{Exec, Attach, PortForward}, strings.ToLower(info.Subresource))
}

func asksAboutSelf(info *request.RequestInfo) bool {
	return info.Verb == "create" && info.Name == "" && info.Subresource == "" && info.Namespace == "" &&
		slices.Contains(reviews[info.APIGroup], info.Resource)
}

// LongRunning says whether the answer to a request lasts until someone ends it: a watch, or a log that is followed.
// apiPath is as for Check.
func LongRunning(r *http.Request, apiPath string) bool {
	q := unescape(r.URL.RawQuery)
	mayLast := strings.Contains(q, "watch") || strings.Contains(q, "follow") || strings.Contains(apiPath, "/watch/")
	if !mayLast || !isSafe(r.Method) {
		return false
	}
	info, err := requestInfo(r.Method, unescape(apiPath), r.URL.RawQuery)
	if err != nil || !info.IsResourceRequest {
		return false
	}
	return info.Verb == "watch" || info.Resource == "pods" && info.Subresource == "log" && asked(r.URL.Query()["follow"])
}

// ThroughProxy says whether the API server passes a request on to a node, a pod or a Service. apiPath is as for Check.
func ThroughProxy(r *http.Request, apiPath string) bool {
	if !strings.Contains(apiPath, "proxy") {
		return false
	}
	info, err := requestInfo(r.Method, unescape(apiPath), r.URL.RawQuery)
	return err == nil && info.IsResourceRequest && subresource(info) == "proxy"
}

// asked reads a switch of a query as Kubernetes does: only "0" and "false" are no.
func asked(values []string) bool {
	return len(values) > 0 && values[0] != "0" && !strings.EqualFold(values[0], "false")
}
