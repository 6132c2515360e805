package apiserverproxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/httpproxy"
)

// measure serves a proxy request and counts it under the names of kube-apiserver's metrics. wrong is what is wrong with the
// address, or nil.
func (h *Handler) measure(w http.ResponseWriter, r *http.Request, a address.Address, wrong error) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !names(info, a) || info.APIGroup != h.group {
		if wrong == nil {
			wrong = apierrors.NewBadRequest("the path can be read in more than one way; escape nothing before /proxy that need not be")
		}
		h.answers.fail(w, r, wrong)
		return
	}
	began, ok := request.ReceivedTimestampFrom(r.Context())
	if !ok {
		began = time.Now()
	}
	delegate := &metrics.ResponseWriterDelegator{ResponseWriter: w}
	metrics.RecordLongRunning(r, info, metrics.APIServerComponent, func() {
		h.serve(responsewriter.WrapForHTTP1Or2(delegate), r, info, a, wrong)
	})
	metrics.MonitorRequest(r, "CONNECT", info.APIGroup, info.APIVersion, info.Resource, info.Subresource, metrics.CleanScope(info),
		metrics.APIServerComponent, false, "", delegate.Status(), delegate.ContentLength(), time.Since(began))
}

// names tells whether the RequestInfo, which is what was authorized, calls the same thing as the address.
func names(info *request.RequestInfo, a address.Address) bool {
	return info.IsResourceRequest && info.Resource == a.Kind.Resource() && info.Subresource == "proxy" &&
		info.Namespace == a.Namespace && info.Name == a.ID
}

// serve answers a request that was authorized, in the order of kube-apiserver's checks.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, a address.Address, wrong error) {
	if err := h.allow(r, info, a); err != nil {
		h.answers.fail(w, r, err)
		return
	}
	if wrong != nil {
		h.answers.fail(w, r, wrong)
		return
	}
	leave, err := h.enter(r, a)
	if err != nil {
		h.answers.fail(w, r, err)
		return
	}
	defer leave()
	d, err := h.locator.Locate(r.Context(), a)
	switch {
	case err != nil:
		h.answers.fail(w, r, err)
	case a.Path == "" && !httpproxy.WantsUpgrade(r) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		h.redirectToRoot(w, r)
	default:
		h.forward(w, r, a, d)
	}
}

// allow refuses what kube-apiserver refuses before it looks for the target, and what --strict-upgrades adds.
func (h *Handler) allow(r *http.Request, info *request.RequestInfo, a address.Address) error {
	if !proxied(r.Method) {
		// The original finds no route; this is what it answers then (serviceErrorHandler in apiserver/pkg/server/handler.go).
		return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
	}
	if r.URL.RawQuery != "" && len(r.URL.Query()["dryRun"]) != 0 {
		return apierrors.NewBadRequest("dryRun is not supported")
	}
	if err := h.strict(r, a); err != nil {
		return err
	}
	return h.admit(r.Context(), info, a)
}

// proxied tells whether a method is one of those that the subresources have.
func proxied(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// enter counts a request in for its user and its target. leave counts it out.
func (h *Handler) enter(r *http.Request, a address.Address) (leave func(), err error) {
	user := ""
	if u, ok := request.UserFrom(r.Context()); ok {
		user = u.GetName()
	}
	target := a.Kind.String() + "/" + a.Namespace + "/" + a.Name
	if !h.users.enter(user) {
		return nil, tooMany("of this user", h.users.most)
	}
	if !h.targets.enter(target) {
		h.users.leave(user)
		return nil, tooMany("to this "+a.Kind.String(), h.targets.most)
	}
	return func() { h.users.leave(user); h.targets.leave(target) }, nil
}

// retryAfter is when a client that was turned away may come again, in seconds.
const retryAfter = 1

func tooMany(whose string, most int) error {
	return apierrors.NewTooManyRequests(fmt.Sprintf("%d requests %s are open, which is as many as may be; wait for some to end", most, whose), retryAfter)
}

// redirectToRoot answers a page without a slash at its end, whose relative links would lead astray (k/k#4958).
func (h *Handler) redirectToRoot(w http.ResponseWriter, r *http.Request) {
	to := r.URL.EscapedPath() + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	if h.config.Aggregated {
		layered(w.Header(), http.StatusMovedPermanently, r.URL.EscapedPath())
	}
	w.WriteHeader(http.StatusMovedPermanently)
}

// clientOf returns the address of the client, invalid if it has none.
func clientOf(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr().Unmap()
}
