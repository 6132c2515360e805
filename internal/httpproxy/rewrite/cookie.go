package rewrite

import (
	"net"
	"net/http"
	"strings"
)

// cookies moves cookies below the prefix: a target's cookie for / would otherwise go to every other target, and to the API
// server. One that is malformed passes in the same way, attribute by attribute (RFC 6265, 5.2, has no errors).
func (m *mover) cookies(h http.Header) { m.each(h, "Set-Cookie", m.cookie) }

// cookie moves the Path of a cookie. Without one, a browser takes the folder of the request (RFC 6265, 5.1.4), which is below
// the prefix unless the prefix was all of the path.
func (m *mover) cookie(value string) string {
	pair, attributes, more := strings.Cut(value, ";")
	if isHostBound(pair) {
		return value
	}
	var b strings.Builder
	b.WriteString(pair)
	pathless := true
	for more {
		var a string
		a, attributes, more = strings.Cut(attributes, ";")
		moved, keep := m.attribute(a)
		if keep {
			b.WriteString(";" + moved)
		}
		if isPath(a) {
			pathless = !strings.HasPrefix(attributeValue(a), "/")
		}
	}
	if pathless && m.RequestPath == "" {
		b.WriteString("; Path=" + m.cookiePath())
	}
	return b.String()
}

// isHostBound tells whether a cookie's name begins with __Host-, in any case, or the same for one without a name (RFC 6265bis,
// 4.1.3.2 and 5.7). A browser refuses such a cookie with any Path but /, so that it is all or nothing; without its session
// nothing of an application works, and the same cookie would have had no path in the original either.
func isHostBound(pair string) bool {
	name := strings.TrimLeft(pair, " \t=")
	const bound = "__Host-"
	return len(name) >= len(bound) && strings.EqualFold(name[:len(bound)], bound)
}

func attributeName(a string) string {
	name, _, _ := strings.Cut(a, "=")
	return strings.Trim(name, " \t")
}

func attributeValue(a string) string {
	_, v, _ := strings.Cut(a, "=")
	return strings.Trim(v, " \t")
}

func isPath(a string) bool { return strings.EqualFold(attributeName(a), "path") }

// attribute returns an attribute as it is for the client, if there it is one. A Path that does not begin with a slash counts
// as none, and stays. Nothing of the rest is ours.
func (m *mover) attribute(a string) (string, bool) {
	v := attributeValue(a)
	switch {
	case isPath(a) && strings.HasPrefix(v, "/"):
		i := strings.IndexByte(a, '=') + 1
		i += strings.Index(a[i:], v)
		return a[:i] + m.cookieBelow(v) + a[i+len(v):], true
	case strings.EqualFold(attributeName(a), "domain"):
		return a, !m.isOurHost(strings.TrimPrefix(v, "."))
	}
	return a, true
}

// cookieBelow moves a cookie's path. That for the target's root gets no slash at its end, with which it would not be sent for
// the prefix alone (RFC 6265, 5.1.4). Browsers compare such paths byte by byte: no dots, no escapes.
func (m *mover) cookieBelow(path string) string {
	switch {
	case isBelow(path, m.Prefix), isBelow(path, m.prefix):
		return path
	case path == "/":
		return m.cookiePath()
	}
	return m.cookiePath() + path
}

func (m *mover) cookiePath() string { return strings.ReplaceAll(m.Prefix, ";", "%3B") }

// isOurHost tells whether a cookie's domain is the target or whom the client asked. Without Domain the cookie is the asked
// host's alone, which is never more than the target wanted; the target's own address no browser would accept.
func (m *mover) isOurHost(domain string) bool {
	for _, host := range []string{m.TargetHost, m.RequestHost, m.Host} {
		if domain != "" && strings.EqualFold(domain, hostname(host)) {
			return true
		}
	}
	return false
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}
