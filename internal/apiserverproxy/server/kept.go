package server

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"varco.dev/internal/httpproxy"
)

type keptKey struct{}

// keep returns the request with its header kept as the client has sent it: the chain takes credentials out.
func keep(r *http.Request) *http.Request {
	out := r.WithContext(context.WithValue(r.Context(), keptKey{}, r.Header))
	out.Header = r.Header.Clone()
	return out
}

// again passes a request on that was for the proxy at first, with the header that it came with.
func again(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if header, ok := r.Context().Value(keptKey{}).(http.Header); ok {
			out := *r
			out.Header = header
			r = &out
		}
		w.Header().Del("Cache-Control") // the API server says so itself
		w.Header().Del("Audit-Id")
		next.ServeHTTP(w, r)
	})
}

// checked lets only requests through that were authorized as what the proxy takes them for: the subresource proxy of one
// object of the group. RequestInfo reads the path with its escapes undone, where an escaped slash parts names; whoever reads
// it as it was sent would serve another object than the one that was allowed.
func checked(group string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || !info.IsResourceRequest || info.APIGroup != group || info.Subresource != "proxy" || !readsAs(r.URL.EscapedPath(), info) {
			httpproxy.Fail(w, r, httpproxy.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest,
				fmt.Sprintf("the path %q is not that of one object's proxy", r.URL.EscapedPath())))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readsAs says whether a path names the same object as it was sent.
func readsAs(escaped string, info *request.RequestInfo) bool {
	want := [9]string{"", info.APIPrefix, info.APIGroup, info.APIVersion}
	n := 4
	if info.APIGroup == "" {
		want[2], n = info.APIVersion, 3
	}
	parts := want[:n]
	if info.Namespace != "" {
		parts = append(parts, "namespaces", info.Namespace)
	}
	for _, part := range append(parts, info.Resource, info.Name, info.Subresource) {
		var segment string
		segment, escaped, _ = strings.Cut(escaped, "/")
		if segment != part {
			plain, err := url.PathUnescape(segment)
			if err != nil || plain != part {
				return false
			}
		}
	}
	return info.Name != ""
}
