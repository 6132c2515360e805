package httpproxy

import (
	"net"
	"net/http"
	"strings"
)

// outgoing makes the request to the target of the client's. It shares what nobody changes: RoundTrippers must not change a
// request (http.RoundTripper), and header values are only ever replaced.
func (x *exchange) outgoing() {
	out, r, t := x.out, x.r, x.t
	x.url = *r.URL
	x.url.Scheme, x.url.Host, x.url.User = t.Scheme, t.Host, nil
	x.url.Opaque = "" // of a target such as x:https://host/path; it would be sent in place of the path
	KeepEscapes(&x.url)
	out.URL = &x.url
	out.Host = t.HostHeader
	if out.Host == "" {
		out.Host = t.Host
	}
	out.RequestURI = ""
	out.Close = false
	out.Header = x.outgoingHeader()
	x.attachBody()
	if t.Edit != nil {
		t.Edit(out)
	}
}

// outgoingHeader returns what the target shall see of the client's header.
func (x *exchange) outgoingHeader() http.Header {
	in := x.r.Header
	out := make(http.Header, len(in)+3)
	drop := connectionOptions(in)
	for k, v := range in {
		if !isHop(k) && !drop.has(k) {
			out[k] = v
		}
	}
	if hasToken(in["Te"], "trailers") {
		out["Te"] = []string{"trailers"}
	}
	if _, ok := in["User-Agent"]; !ok {
		out["User-Agent"] = nil // net/http would speak for itself
	}
	if x.upgrading {
		out["Connection"] = []string{"Upgrade"}
		out["Upgrade"] = []string{upgradeOf(in)}
	} else if x.mayDecompress() {
		out["Accept-Encoding"] = []string{"gzip"}
	}
	forwardedFor(out, x.r.RemoteAddr)
	return out
}

// forwardedFor appends the client's address, as httputil.ReverseProxy and with it kubectl proxy does.
func forwardedFor(h http.Header, remoteAddr string) {
	client, _, err := net.SplitHostPort(remoteAddr)
	if err != nil {
		return // a unix socket
	}
	if prior := h["X-Forwarded-For"]; len(prior) > 0 {
		client = strings.Join(prior, ", ") + ", " + client
	}
	h["X-Forwarded-For"] = []string{client}
}

// attachBody has the client's body sent to the target as it comes.
func (x *exchange) attachBody() {
	if x.r.ContentLength == 0 || x.r.Body == nil || x.r.Body == http.NoBody {
		x.out.Body = http.NoBody
		return
	}
	x.mu.Lock()
	x.body = newRequestBody(x)
	x.mu.Unlock()
	x.out.Body = x.body
}
