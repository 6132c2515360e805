package rewrite_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"

	"varco.dev/internal/httpproxy/rewrite"
)

func cookies(t testing.TB, p rewrite.Page, values ...string) []string {
	h := http.Header{"Set-Cookie": values}
	if err := rewrite.Response(response(200, "GET", "", h), p); err != nil {
		t.Fatal(err)
	}
	return h["Set-Cookie"]
}

func TestCookies(t *testing.T) {
	for cookie, want := range map[string]string{
		"a=b":                             "a=b", // the folder of the request, which is below the prefix
		"a=b; Path=/":                     "a=b; Path=/p",
		"a=b; Path=/app":                  "a=b; Path=/p/app",
		"a=b;path=/app/;Secure":           "a=b;path=/p/app/;Secure",
		"a=b; PATH = /app ; HttpOnly":     "a=b; PATH = /p/app ; HttpOnly",
		"a=b; Path=/p":                    "a=b; Path=/p",
		"a=b; Path=/p/app":                "a=b; Path=/p/app",
		"a=b; Path=/pp":                   "a=b; Path=/p/pp",
		"a=b; Path=/%2e":                  "a=b; Path=/p/%2e",
		"a=b; Path=":                      "a=b; Path=",
		"a=b; Path":                       "a=b; Path",
		"a=b; Path=app":                   "a=b; Path=app",
		`a=b; Path="/"`:                   `a=b; Path="/"`, // does not begin with a slash: counts as none
		"a=b; Path=/x; Path=/y":           "a=b; Path=/p/x; Path=/p/y",
		"a=b; Domain=10.1.1.1; Path=/":    "a=b; Path=/p",
		"a=b; domain=.API":                "a=b",
		"a=b; Domain=api.example.com":     "a=b; Domain=api.example.com",
		"a=b; Domain=":                    "a=b; Domain=",
		"a=/x; Path=/; SameSite=None":     "a=/x; Path=/p; SameSite=None",
		"a=b; Max-Age=3; Expires=Thu, 01": "a=b; Max-Age=3; Expires=Thu, 01",
		"a=b; Path=/; Partitioned; x=y;;": "a=b; Path=/p; Partitioned; x=y;;",
		"":                                "",
		";":                               ";",
		"=":                               "=",
		"a":                               "a",
		"=a; path=/":                      "=a; path=/p",
		";;;Path=/":                       ";;;Path=/p",
		// A browser takes these with Path=/ alone (RFC 6265bis), so that they stay.
		"__Host-a=b; Path=/; Secure":   "__Host-a=b; Path=/; Secure",
		"__host-a=b; Path=/; Secure":   "__host-a=b; Path=/; Secure",
		" =__Host-a; Path=/; Secure":   " =__Host-a; Path=/; Secure",
		"__Hosta=b; Path=/; Secure":    "__Hosta=b; Path=/p; Secure",
		"__Secure-a=b; Path=/; Secure": "__Secure-a=b; Path=/p; Secure",
	} {
		got := cookies(t, at("/x"), cookie, "other=1; Path=/")
		if !slices.Equal(got, []string{want, "other=1; Path=/p"}) {
			t.Errorf("%s: got %q, want %q", cookie, got, want)
		}
	}
}

// TestCookieOfThePrefixItself is that a cookie without Path, set where nothing follows the prefix, does not belong to the folder
// above it.
func TestCookieOfThePrefixItself(t *testing.T) {
	for cookie, want := range map[string]string{"a=b": "a=b; Path=/p", "a=b; Path=": "a=b; Path=; Path=/p", "a=b; Path=/x": "a=b; Path=/p/x", "__Host-a=b": "__Host-a=b"} {
		if got := cookies(t, at(""), cookie); got[0] != want {
			t.Errorf("%s: got %s, want %s", cookie, got, want)
		}
	}
}

// TestCookieJar asks a jar where cookies go: to the target and to no other.
func TestCookieJar(t *testing.T) {
	const prefix = "https://api:6443/api/v1/namespaces/n/services/s:80/proxy"
	p := rewrite.Page{Prefix: "/api/v1/namespaces/n/services/s:80/proxy", TargetHost: "10.1.1.1:80", RequestHost: "api:6443", RequestPath: "/app/login"}
	for cookie, want := range map[string]string{
		"a=b":                         "/app/x",
		"a=b; Path=/":                 " / /x /app/x /app2",
		"a=b; Path=/app":              "/app/x",
		"a=b; Path=/; Domain=api":     " / /x /app/x /app2",
		"a=b; Path=/; Domain=other":   "",
		"a=b; Path=/; Secure":         " / /x /app/x /app2",
		"a=b; Path=/app; Path=/other": "",
	} {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		from, _ := url.Parse(prefix + "/app/login")
		jar.SetCookies(from, (&http.Response{Header: http.Header{"Set-Cookie": cookies(t, p, cookie)}}).Cookies())
		var got []string
		for _, path := range []string{"", "/", "/x", "/app/x", "/app2"} {
			if u, _ := url.Parse(prefix + path); len(jar.Cookies(u)) > 0 {
				got = append(got, path)
			}
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s: goes to %q, want %q", cookie, g, want)
		}
		for _, other := range []string{"https://api:6443/api/v1/namespaces/n/services/t/proxy/", "https://api:6443/", "https://api:6443/api/v1/namespaces/n/secrets"} {
			if u, _ := url.Parse(other); len(jar.Cookies(u)) > 0 {
				t.Errorf("%s: goes to %s", cookie, other)
			}
		}
	}
}

// FuzzCookie is that no cookie gets a Path outside the prefix, loses its value, or changes when it is moved again.
func FuzzCookie(f *testing.F) {
	for _, c := range []string{"a=b; Path=/", "a=b;path = /x ;Domain=api", "__Host-a=b; Path=/", ";Path=/;;", "a; path", "=;=;=/", "a=b; Path=/p; Path=x"} {
		f.Add(c, "/x")
	}
	f.Fuzz(func(t *testing.T, cookie, path string) {
		got := cookies(t, at(path), cookie)[0]
		pair, attributes, _ := strings.Cut(got, ";")
		if was, _, _ := strings.Cut(cookie, ";"); pair != was {
			t.Fatalf("%q became %q", cookie, got)
		}
		if again := cookies(t, at("/x"), got)[0]; again != got {
			t.Fatalf("%q became %q, and that %q", cookie, got, again)
		}
		if n := strings.ToLower(strings.TrimLeft(pair, " \t=")); strings.HasPrefix(n, "__host-") {
			if got != cookie {
				t.Fatalf("%q became %q", cookie, got)
			}
			return
		}
		for a := range strings.SplitSeq(attributes, ";") {
			name, v, _ := strings.Cut(a, "=")
			v = strings.Trim(v, " \t")
			if strings.EqualFold(strings.Trim(name, " \t"), "path") && strings.HasPrefix(v, "/") && !strings.HasPrefix(v+"/", "/p/") {
				t.Fatalf("%q became %q", cookie, got)
			}
		}
	})
}
