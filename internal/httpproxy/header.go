package httpproxy

import (
	"net/http"
	"net/textproto"
	"strings"
)

// isHop tells whether a header field is about one connection (RFC 9110, 7.6.1, and those of RFC 2616, 13.5.1). Trailer is
// for net/http to write, which knows what is sent.
func isHop(key string) bool {
	switch key {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// options are the names of header fields that a Connection field names, most often none.
type options []string

func (o options) has(key string) bool {
	for _, name := range o {
		if name == key {
			return true
		}
	}
	return false
}

// connectionOptions returns the fields that are about this connection alone because its sender says so.
func connectionOptions(h http.Header) (out options) {
	for _, line := range h["Connection"] {
		if line == "keep-alive" || line == "close" || line == "Upgrade" {
			continue // there is no need to look
		}
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				out = append(out, http.CanonicalHeaderKey(name))
			}
		}
	}
	return out
}

// hasToken tells whether lists hold a word, in any case. Parameters (trailers;q=0.5) do not matter.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for word := range strings.SplitSeq(line, ",") {
			word, _, _ = strings.Cut(word, ";")
			if strings.EqualFold(textproto.TrimString(word), token) {
				return true
			}
		}
	}
	return false
}

// copyHeader adds fields to those that are there. Values are shared, not copied.
func copyHeader(dst, src http.Header) {
	for k, v := range src {
		if old, ok := dst[k]; ok {
			v = append(old[:len(old):len(old)], v...)
		}
		dst[k] = v
	}
}

// upgradeOf returns the protocols that a request wants to change to, or that an answer changes to: "websocket", "SPDY/3.1".
// A wish for HTTP/2 (h2c) is none: it is about this connection alone, RFC 9113 has withdrawn it, and who asks expects to be
// ignored by most.
func upgradeOf(h http.Header) string {
	lines := h["Upgrade"]
	if len(lines) == 0 || !hasToken(h["Connection"], "upgrade") {
		return ""
	}
	protocols := lines[0]
	if len(lines) > 1 {
		protocols = strings.Join(lines, ", ")
	}
	if strings.EqualFold(textproto.TrimString(protocols), "h2c") {
		return ""
	}
	return protocols
}

// WantsUpgrade tells whether a request is served as one for another protocol. RFC 9110, 7.8: HTTP/1.0 has none.
func WantsUpgrade(r *http.Request) bool { return r.ProtoAtLeast(1, 1) && upgradeOf(r.Header) != "" }
