package guard

import (
	"net/http"
	"net/url"
	"strings"
)

// judgeBrowser keeps other sites' pages from changing things and from opening streams: it looks at what may change
// something and at every upgrade, since browsers send WebSocket handshakes of any page anywhere. Programs send neither
// Origin nor Sec-Fetch-Site and pass. A page of another Service of the gateway is same-site, which is not enough.
func (g *Guard) judgeBrowser(r *http.Request) *Refusal {
	if isSafe(r.Method) && !mayUpgrade(r) {
		return nil
	}
	origins, site := r.Header["Origin"], fetchSite(r)
	if len(origins) == 0 && site == "" {
		return nil
	}
	if len(origins) > 1 {
		return forbid(ruleAcceptOrigins, "request has %d Origin headers", len(origins))
	}
	if len(origins) == 1 && g.acceptOrigins.match(strings.ToLower(origins[0])) {
		return nil
	}
	if site != "" && site != "same-origin" && site != "none" {
		return forbid(ruleAcceptOrigins, "browser says that the request is %s: %s", site, originHint(origins))
	}
	if len(origins) == 1 && !isOwnOrigin(r, origins[0], site == "same-origin") {
		return forbid(ruleAcceptOrigins, "origin %q is not this proxy's: %s", origins[0], originHint(origins))
	}
	return nil
}

func originHint(origins []string) string {
	if len(origins) == 0 {
		return "its page may not change things here, nor open streams"
	}
	return "name the origin with --accept-origins to let its pages change things and open streams"
}

// fetchSite returns what the browser says of the page: same-origin, same-site, cross-site, none; "" if nothing. Of
// several headers the worst counts.
func fetchSite(r *http.Request) string {
	values := r.Header["Sec-Fetch-Site"]
	if len(values) == 1 {
		return strings.ToLower(strings.TrimSpace(values[0]))
	}
	return strings.ToLower(strings.Join(values, ", "))
}

// isOwnOrigin says whether the origin is the one that the request was sent to. The scheme may differ only where the
// browser says same-origin: then something before the gateway ends TLS.
func isOwnOrigin(r *http.Request, origin string, anyScheme bool) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	own := scheme
	if anyScheme && (u.Scheme == "http" || u.Scheme == "https") {
		own = u.Scheme
	}
	return u.Scheme == own && withPort(u.Host, own) == withPort(r.Host, own)
}

// withPort writes a host with its port: browsers leave the scheme's own port out.
func withPort(hostport, scheme string) string {
	port := "80"
	if scheme == "https" {
		port = "443"
	}
	u := url.URL{Host: hostport}
	if p := u.Port(); p != "" {
		port = p
	}
	return plainHost(u.Hostname()) + ":" + port
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// mayUpgrade says whether the request asks to change protocols (RFC 9110, section 7.8), or somebody could think that it
// does: for those who refuse, half of an upgrade is one too.
func mayUpgrade(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 || connectionSays(r, "upgrade")
}

// connectionSays looks for a word in Connection headers, anywhere, as Kubernetes does (httpstream.IsUpgradeRequest).
func connectionSays(r *http.Request, word string) bool {
	for _, v := range r.Header["Connection"] {
		if len(v) >= len(word) && strings.Contains(strings.ToLower(v), word) {
			return true
		}
	}
	return false
}

// hidesRequests finds upgrades to HTTP/2 without TLS beside others: what answers 101 to them, be it a load balancer, takes
// any further requests on the connection, which nobody here sees. Alone, as curl --http2 asks for one, httpproxy leaves it
// out.
func hidesRequests(r *http.Request) bool {
	protocols := r.Header["Upgrade"]
	if len(protocols) == 1 && strings.EqualFold(strings.TrimSpace(protocols[0]), "h2c") {
		return false
	}
	for _, v := range protocols {
		if strings.Contains(strings.ToLower(v), "h2c") {
			return true
		}
	}
	return false
}
