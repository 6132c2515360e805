package rewrite_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestDifferences has every difference from Kubernetes that is meant, and why.
func TestDifferences(t *testing.T) {
	redirect := func(location string) question {
		return question{source: "http://10.1.1.1:8080/x", requestHost: "api:6443", prefix: "/p/proxy", location: location}
	}
	named := func(location string) question {
		q := redirect(location)
		q.scheme, q.host = "https", "api:6443"
		return q
	}
	page := func(body string) question {
		return question{source: "http://10.1.1.1:8080/x", requestHost: "api:6443", prefix: "/p/proxy", contentType: "text/html", body: body}
	}
	typed := func(q question, contentType string) question { q.contentType = contentType; return q }
	at := func(source string, q question) question { q.source = source; return q }
	for _, c := range []struct {
		why            string
		question       question
		original, ours reply
	}{
		// Location
		{"an escaped slash is not a separator (k/k#14193)", redirect("/a%2Fb/c"), reply{location: "/p/proxy/a/b/c"}, reply{location: "/p/proxy/a%2Fb/c"}},
		{"an escaped slash stays next to what has to be escaped", redirect("/a%2fb/<c>"), reply{location: "/p/proxy/a/b/%3Cc%3E"}, reply{location: "/p/proxy/a%2Fb/%3Cc%3E"}},
		{"what is escaped stays so", redirect("/s%3A1/*"), reply{location: "/p/proxy/s:1/%2A"}, reply{location: "/p/proxy/s%3A1/*"}},
		{"empty segments are segments", redirect("/a//b"), reply{location: "/p/proxy/a/b"}, reply{location: "/p/proxy/a//b"}},
		{".. ends at the target's root", redirect("/../../api/v1/secrets"), reply{location: "/api/v1/secrets"}, reply{location: "/p/proxy/api/v1/secrets"}},
		{".. does not leave the prefix, given a path below it", redirect("/p/proxy/../x"), reply{location: "/p/proxy/../x"}, reply{location: "/p/proxy/p/x"}},
		{"a folder is still one without its last segment", redirect("/a/b/.."), reply{location: "/p/proxy/a"}, reply{location: "/p/proxy/a/"}},
		{"a path is below a prefix only after a slash", redirect("/p/proxyish"), reply{location: "/p/proxyish"}, reply{location: "/p/proxy/p/proxyish"}},
		{"the target's root needs no slash", redirect("http://10.1.1.1:8080"), reply{location: "http://10.1.1.1:8080"}, reply{location: "/p/proxy/"}},
		{"the target's root with a query", redirect("http://10.1.1.1:8080?a=b"), reply{location: "http://10.1.1.1:8080?a=b"}, reply{location: "/p/proxy/?a=b"}},
		{"a scheme has a port", at("http://10.1.1.1:80/x", redirect("http://10.1.1.1/y")), reply{location: "http://10.1.1.1/y"}, reply{location: "/p/proxy/y"}},
		{"hosts have no case", at("http://web.ns:8080/x", redirect("http://WEB.ns:8080/y")), reply{location: "http://WEB.ns:8080/y"}, reply{location: "/p/proxy/y"}},
		{"a path of another scheme is no path of the target", redirect("myapp:/open"), reply{location: "/p/proxy/open"}, reply{location: "myapp:/open"}},
		{"a password of the target is not one of the API server", named("http://u:p@10.1.1.1:8080/y"), reply{location: "https://u:p@api:6443/p/proxy/y"}, reply{location: "https://api:6443/p/proxy/y"}},
		{"a user without a host", redirect("http://u@10.1.1.1:8080/y"), reply{location: "//u@/p/proxy/y"}, reply{location: "/p/proxy/y"}},
		{"a scheme without a host", func() question { q := redirect("/y"); q.scheme = "https"; return q }(), reply{location: "https:///p/proxy/y"}, reply{location: "/p/proxy/y"}},
		{"a page beside a redirect has links too", func() question { q := page(`<a href="/y">`); q.location = "/y"; return q }(),
			reply{location: "/p/proxy/y", body: `<a href="/y">`}, reply{location: "/p/proxy/y", body: `<a href="/p/proxy/y">`}},
		// HTML: what is not moved stays as it is, byte by byte
		{"a tag is not written anew", page(`<A  HREF='/y' Title=b>`), reply{body: `<a href="/p/proxy/y" title="b">`}, reply{body: `<A  HREF='/p/proxy/y' Title=b>`}},
		{"a second attribute of a name stays", page(`<a href="/y" href="/z">`), reply{body: `<a href="/p/proxy/y">`}, reply{body: `<a href="/p/proxy/y" href="/z">`}},
		{"a value gets quotes only if it is moved", page(`<a href=/y class=b>`), reply{body: `<a href="/p/proxy/y" class="b">`}, reply{body: `<a href="/p/proxy/y" class=b>`}},
		{"a URL that is not moved is not written anew", page(`<a href="x y?a=1&b=2">`), reply{body: `<a href="x%20y?a=1&amp;b=2">`}, reply{body: `<a href="x y?a=1&b=2">`}},
		{"bytes of other character sets stay", page("<a href=\"/caf\xe9\">"), reply{body: `<a href="/p/proxy/caf%E9">`}, reply{body: "<a href=\"/p/proxy/caf\xe9\">"}},
		{"a page that ends in a tag ends there", page(`<p><a href="/y`), reply{body: "<p>"}, reply{body: `<p><a href="/y`}},
		// HTML: more is moved
		{"space around a URL is none of it", page("<a href=' /y\n'>"), reply{body: "<a href=\" /y\n\">"}, reply{body: "<a href=' /p/proxy/y\n'>"}},
		{"a URL that package url refuses is one to browsers", page(`<a href="/100%">`), reply{body: `<a href="/100%">`}, reply{body: `<a href="/p/proxy/100%">`}},
		{"a user with an @", page(`<a href="http://u@v@10.1.1.1:8080/y">`), reply{body: `<a href="//u%40v@/p/proxy/y">`}, reply{body: `<a href="/p/proxy/y">`}},
		{"tracks of videos", page(`<track src="/y">`), reply{body: `<track src="/y">`}, reply{body: `<track src="/p/proxy/y">`}},
		{"srcset", page(`<img srcset="/a 1x, /b 2x">`), reply{body: `<img srcset="/a 1x, /b 2x">`}, reply{body: `<img srcset="/p/proxy/a 1x, /p/proxy/b 2x">`}},
		{"ping", page(`<a ping="/a /b">`), reply{body: `<a ping="/a /b">`}, reply{body: `<a ping="/p/proxy/a /p/proxy/b">`}},
		{"meta refresh", page(`<meta content="0;url=/y" http-equiv="refresh">`), reply{body: `<meta content="0;url=/y" http-equiv="refresh">`},
			reply{body: `<meta content="0;url=/p/proxy/y" http-equiv="refresh">`}},
		{"SVG", page(`<use xlink:href="/a.svg#b"/>`), reply{body: `<use xlink:href="/a.svg#b"/>`}, reply{body: `<use xlink:href="/p/proxy/a.svg#b"/>`}},
		{"backgrounds", page(`<td background="/y">`), reply{body: `<td background="/y">`}, reply{body: `<td background="/p/proxy/y">`}},
		{"media types have no case", typed(page(`<a href="/y">`), "Text/HTML"), reply{body: `<a href="/y">`}, reply{body: `<a href="/p/proxy/y">`}},
		// HTML: less is moved
		{"scripts that look like paths", page(`<a href="javascript:/a/.test(b)">`), reply{body: `<a href="/p/proxy/a/.test%28b%29">`}, reply{body: `<a href="javascript:/a/.test(b)">`}},
		{"after a base elsewhere, what names no host is there", page(`<base href="//cdn/"><img src="/y">`), reply{body: `<base href="//cdn/"><img src="/p/proxy/y">`},
			reply{body: `<base href="//cdn/"><img src="/y">`}},
		{"UTF-16", page("\xff\xfe<a href=\"/y\">"), reply{body: "\xff\xfe<a href=\"/p/proxy/y\">"}, reply{body: "\xff\xfe<a href=\"/y\">"}},
		{"UTF-16 by its media type", typed(page(`<a href="/y">`), "text/html; charset=UTF-16LE"), reply{body: `<a href="/p/proxy/y">`}, reply{body: `<a href="/y">`}},
		{"a very long URL", page(`<a href="/` + strings.Repeat("x", 64<<10) + `">`), reply{body: `<a href="/p/proxy/` + strings.Repeat("x", 64<<10) + `">`},
			reply{body: `<a href="/` + strings.Repeat("x", 64<<10) + `">`}},
	} {
		if got := c.question.original(t); got != c.original {
			t.Errorf("%s: the original: got %.300q\nwant %.300q", c.why, fmt.Sprint(got), fmt.Sprint(c.original))
		}
		if got := c.question.ours(t); got != c.ours {
			t.Errorf("%s: got %.300q\nwant %.300q", c.why, fmt.Sprint(got), fmt.Sprint(c.ours))
		}
	}
}

// TestSameAsOriginal sends more of both kinds to both.
func TestSameAsOriginal(t *testing.T) {
	for _, source := range []string{"http://10.1.1.1:8080/x/y", "https://web.ns:8443/"} {
		for _, requestHost := range []string{"api:6443", "localhost:8001", ""} {
			for _, us := range []question{{}, {scheme: "https", host: "api:6443"}, {host: "api:6443"}} {
				q := us
				q.source, q.requestHost, q.prefix = source, requestHost, "/api/v1/namespaces/n/services/s:http/proxy"
				for _, u := range urls() {
					l, p := q, q
					l.location = u
					if got, want := l.ours(t), l.original(t); got != want {
						t.Errorf("%+v: got %+v\nwant %+v", l, got, want)
					}
					p.contentType, p.body = "text/html; charset=utf-8", strings.NewReplacer("&", "&amp;", `"`, "&#34;").Replace(u)
					p.body = `<html manifest="` + p.body + `"><a href="` + p.body + `" title="/x">`
					if got, want := p.ours(t), p.original(t); got != want {
						t.Errorf("%+v: got %+v\nwant %+v", p, got, want)
					}
				}
			}
		}
	}
}

// urls are of all shapes that both take for the same.
func urls() []string {
	return []string{"/", "/a", "/a/", "/a/b.html?c=d&e=/f#g", "a", "a/b", "./a", "../a", "../../../a", "#a", "?a=/b", ".",
		"http://10.1.1.1:8080/", "http://10.1.1.1:8080/a?b#c", "https://10.1.1.1:8080/a", "//10.1.1.1:8080/a", "https://web.ns:8443/a/",
		"http://api:6443/a", "https://api:6443/a/", "//api:6443/a", "http://localhost:8001/a", "http://example.com/a", "//example.com/a", "http://example.com",
		"/api/v1/namespaces/n/services/s:http/proxy", "/api/v1/namespaces/n/services/s:http/proxy/", "/api/v1/namespaces/n/services/s:http/proxy/a",
		"https://api:6443/api/v1/namespaces/n/services/s:http/proxy/a", "/api/v1/namespaces/n/services/s%3Ahttp/proxy/a",
		"/api/v1/namespaces/n/services/other/proxy/a", "mailto:a@b.c", "data:text/html,x", "javascript:void(0)", "/a%20b", "/a;b=c", "/a:b", "/~a/@b/+c,d",
		"http:a", "https:/a", "/a?b=%zz", "10.1.1.1", "/%C3%A9"}
}

// TestPairs has the original move all 35 attributes that it knows, and this package as well.
func TestPairs(t *testing.T) {
	pairs := strings.Fields(`a:href applet:codebase area:href audio:src base:href blockquote:cite body:background button:formaction command:icon
		del:cite embed:src form:action frame:longdesc frame:src head:profile html:manifest iframe:longdesc iframe:src img:longdesc img:src img:usemap
		input:src input:usemap input:formaction ins:cite link:href object:classid object:codebase object:data object:usemap q:cite script:src source:src
		video:poster video:src`)
	if len(pairs) != 35 {
		t.Fatalf("there are %d pairs", len(pairs))
	}
	for _, pair := range pairs {
		element, attribute, _ := strings.Cut(pair, ":")
		q := question{source: "http://10.1.1.1/", requestHost: "api", prefix: "/p", contentType: "text/html", body: fmt.Sprintf(`<%s %s="/x">`, element, attribute)}
		want := fmt.Sprintf(`<%s %s="/p/x">`, element, attribute)
		if got, original := q.ours(t).body, q.original(t).body; got != want || original != want {
			t.Errorf("got %s, the original %s, want %s", got, original, want)
		}
	}
}

// TestBadLocation is the error of both.
func TestBadLocation(t *testing.T) {
	q := question{source: "http://10.1.1.1/", prefix: "/p", location: "/%zz"}
	want := `Internal error occurred: error trying to parse Location header: parse "/%zz": invalid URL escape "%zz"`
	if got, original := q.ours(t).err, q.original(t).err; got != want || original != want {
		t.Errorf("got %s, the original %s\nwant %s", got, original, want)
	}
}
