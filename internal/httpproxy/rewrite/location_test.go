package rewrite_test

import (
	"net/url"
	"strings"
	"testing"
)

// apart tells why ours may differ from the original for a Location: each is a row of TestDifferences.
func apart(q question, u *url.URL) string {
	lower := strings.ToLower(u.EscapedPath() + u.RawPath)
	target, _ := url.Parse(q.source)
	switch {
	case u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		return "scheme"
	case u.User != nil:
		return "user"
	case strings.Contains(lower, "//") || strings.Contains(lower, "/.") || strings.Contains(lower, "%2f") || strings.Contains(lower, "/%2e"):
		return "segments"
	case u.Host != "" && u.Path == "":
		return "root"
	case q.host == "" && q.scheme != "":
		return "page without host"
	case strings.HasPrefix(u.Path, q.prefix) && u.Path != q.prefix && !strings.HasPrefix(u.Path, q.prefix+"/"):
		return "prefix in a segment"
	}
	for _, host := range []string{target.Host, q.requestHost} {
		a, b := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(u.Host, ":80"), ":443")), strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(host, ":80"), ":443"))
		if a == b && u.Host != host {
			return "another name for a host"
		}
	}
	return ""
}

// FuzzLocation compares redirects with the original's.
func FuzzLocation(f *testing.F) {
	for i, u := range append(urls(), "/a//b", "/..", "/%2e%2E/x", "/a%2Fb", "//", "///x", "http:///x", "/\\x", "\\\\x", "http://u@h/x", "*", "/*", "//[::1]:80/x", "/p/proxy") {
		f.Add(u, i%2 == 0, i%3 == 0)
	}
	f.Fuzz(func(t *testing.T, location string, named, asked bool) {
		q := question{source: "http://10.1.1.1:8080/x", requestHost: "api:6443", prefix: "/p/proxy", location: location}
		if named {
			q.scheme, q.host = "https", "api:6443"
		}
		if asked {
			q.requestHost = "10.1.1.1:8080"
		}
		got, want := q.ours(t), q.original(t)
		u, err := url.Parse(location)
		if err != nil || location == "" {
			if got != want {
				t.Fatalf("%q: got %+v, want %+v", location, got, want)
			}
			return
		}
		if why := apart(q, u); why == "" && meaning(got.location) != meaning(want.location) {
			t.Fatalf("%q: got %+v, want %+v", location, got, want)
		}
		moved, err := url.Parse(got.location)
		if err != nil {
			t.Fatalf("%q has become %q: %v", location, got.location, err)
		}
		if isAtTarget(u) && !strings.HasPrefix(moved.Path+"/", "/p/proxy/") {
			t.Fatalf("%q has become %q, which is not below the prefix", location, got.location)
		}
		if strings.Contains(strings.ReplaceAll(strings.ToLower(moved.EscapedPath()), "%2e", ".")+"/", "/../") && isAtTarget(u) {
			t.Fatalf("%q has become %q, which leaves the prefix", location, got.location)
		}
		if again := (question{source: q.source, requestHost: q.requestHost, prefix: q.prefix, scheme: q.scheme, host: q.host, location: got.location}).ours(t); again != got {
			t.Fatalf("%q has become %q, and that %q", location, got.location, again.location)
		}
	})
}

func isAtTarget(u *url.URL) bool {
	return (u.Scheme == "" || u.Scheme == "http" || u.Scheme == "https") && (u.Host == "" || u.Host == "10.1.1.1:8080") && strings.HasPrefix(u.EscapedPath(), "/")
}

// meaning is a URL without the choice of what to escape.
func meaning(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.RawPath, u.RawFragment = "", ""
	return u.String()
}
