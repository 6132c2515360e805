package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"varco.dev/internal/httpproxy/vouch"
)

// unhopped takes back what a trusted front proxy, such as kube-apiserver's aggregation layer, has added about its own client:
// the handler below sees RemoteAddr and Host as if that client had come straight here. The last address of X-Forwarded-For is
// the one that the front proxy saw; those before it are as the client says. Of other connections nothing is believed.
func unhopped(t *vouch.Trust, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t.IsProxy(r) {
			r = unhop(r)
		}
		next.ServeHTTP(w, r)
	})
}

// unhop changes a copy of the request. What is not there or cannot be read stays as it is.
func unhop(r *http.Request) *http.Request {
	out := *r
	out.Header = r.Header.Clone()
	if client, before, ok := lastForwarded(r.Header["X-Forwarded-For"]); ok {
		out.RemoteAddr = net.JoinHostPort(client.String(), "0")
		if before == "" {
			delete(out.Header, "X-Forwarded-For")
		} else {
			out.Header["X-Forwarded-For"] = []string{before}
		}
	}
	if host := r.Header.Get("X-Forwarded-Host"); host != "" {
		out.Host = host
	}
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Uri", "X-Forwarded-Proto"} {
		delete(out.Header, name)
	}
	return &out
}

// lastForwarded returns the last address of X-Forwarded-For, and what stands before it.
func lastForwarded(lines []string) (client netip.Addr, before string, ok bool) {
	all := strings.Join(lines, ", ")
	last := all
	if i := strings.LastIndexByte(all, ','); i >= 0 {
		before, last = strings.TrimSpace(all[:i]), all[i+1:]
	}
	client, err := netip.ParseAddr(strings.TrimSpace(last))
	return client, before, err == nil
}
