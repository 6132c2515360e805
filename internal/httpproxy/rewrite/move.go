package rewrite

import (
	"net/url"
	"strings"
)

// written is a URL as package url writes it, but for slashes that were escaped, which stay so. Package url loses them if the
// path holds bytes that RFC 3986 does not allow.
func written(u *url.URL) string {
	raw := strings.ReplaceAll(u.RawPath, "%2f", "%2F")
	if u.EscapedPath() == u.RawPath || !strings.Contains(raw, "%2F") {
		return u.String()
	}
	parts := strings.Split(raw, "%2F")
	for i, p := range parts {
		parts[i] = (&url.URL{Path: unescaped(p)}).EscapedPath()
	}
	out := *u
	out.RawPath = strings.Join(parts, "%2F")
	return out.String()
}

// reference is a URL in pieces, each as it was written; origin and path and rest together are the whole.
type reference struct {
	origin string // "http://user@host:1", "//host", "http:" or ""
	scheme string // in small letters
	host   string // with its port
	path   string
	rest   string // query and fragment, with ? or #
}

// split takes a URL apart (RFC 3986, appendix B). It never fails: whoever reads the URL later may be as lenient.
func split(raw string) (r reference) {
	s := raw
	if i := index(s, ":/?#"); i > 0 && i < len(s) && s[i] == ':' && isScheme(s[:i]) {
		r.scheme, s = strings.ToLower(s[:i]), s[i+1:]
	}
	// Package url, and with it the original, takes three slashes for a path if no scheme stands before them.
	if strings.HasPrefix(s, "//") && (r.scheme != "" || !strings.HasPrefix(s, "///")) {
		end := index(s[2:], "/?#")
		authority := s[2 : 2+end]
		r.host, s = authority[strings.LastIndexByte(authority, '@')+1:], s[2+end:]
	}
	r.origin = raw[:len(raw)-len(s)]
	i := index(s, "?#")
	r.path, r.rest = s[:i], s[i:]
	return r
}

// index returns where the first of some bytes stands, or the length. For short texts it is faster than strings.IndexAny.
func index(s, any string) int {
	for i := range len(s) {
		if strings.IndexByte(any, s[i]) >= 0 {
			return i
		}
	}
	return len(s)
}

func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if 'a' <= c && c <= 'z' || i > 0 && ('0' <= s[i] && s[i] <= '9' || strings.IndexByte("+-.", s[i]) >= 0) {
			continue
		}
		return false
	}
	return true
}

// move returns where a URL of the target is for the client, and whether it is one of the target: a path that begins with a
// slash, at no host, at the target's, or at the one that the client asked.
func (m *mover) move(raw string) (string, bool) {
	if !strings.ContainsRune(raw, '/') {
		return raw, false // most often a name, a fragment, or a scheme of its own
	}
	r := split(raw)
	if r.scheme != "" && r.scheme != "http" && r.scheme != "https" {
		return raw, false // javascript:/x/.test(y)
	}
	asked := r.host != "" && sameHost(r.host, m.RequestHost, r.scheme)
	if r.host != "" && !asked && !sameHost(r.host, m.TargetHost, r.scheme) {
		return raw, false
	}
	switch {
	case r.path == "" && r.host != "":
		r.path = "/"
	case !strings.HasPrefix(r.path, "/"), r.host == "" && m.foreign:
		return raw, false
	}
	if !asked || m.origin != "" || m.Hostless {
		r.origin = m.origin
	}
	prefix := m.Prefix
	r.path = withoutDots(r.path)
	if isBelow(unescaped(r.path), m.prefix) {
		prefix = "" // it is there already
	}
	return r.origin + prefix + r.path + r.rest, true
}

// isBelow tells whether a path is a prefix or continues it after a slash.
func isBelow(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// withoutDots removes the segments . and .. of an absolute path (RFC 3986, 5.2.4): what the root of a target ends must not climb
// over it once there is a prefix before it. It does so also if their dots are escaped, which
// browsers do not tell apart (URL standard, "double-dot URL path segment"). Empty segments stay.
func withoutDots(path string) string {
	if !strings.Contains(path, "/.") && !strings.Contains(path, "/%2") {
		return path
	}
	segments := strings.Split(path[1:], "/")
	out := segments[:0]
	for i, s := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ReplaceAll(s, "%2e", "."), "%2E", ".") {
		case ".":
			if last {
				out = append(out, "")
			}
		case "..":
			out = out[:max(len(out)-1, 0)]
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

// sameHost tells whether two hosts are the same, the port that a scheme has anyway aside. No scheme means that either would do.
func sameHost(a, b, scheme string) bool {
	if a == b {
		return true
	}
	return strings.EqualFold(withoutPort(a, scheme), withoutPort(b, scheme))
}

func withoutPort(host, scheme string) string {
	if scheme != "https" {
		host = strings.TrimSuffix(host, ":80")
	}
	if scheme != "http" {
		host = strings.TrimSuffix(host, ":443")
	}
	return host
}
