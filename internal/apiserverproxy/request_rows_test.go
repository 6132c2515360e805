package apiserverproxy_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// service is where the Service of oneWeb is served.
const service = "/api/v1/namespaces/ns/services/web/proxy"

// echo answers with all that it has seen of a request.
func echo(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
	for _, k := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(w, "%s: %s\n", k, strings.Join(r.Header[k], " | "))
	}
	body, _ := io.ReadAll(r.Body)
	w.Write(bytes.ToUpper(body))
}

// onEcho is a stage with an echo at the Service, and the original beside it.
func onEcho(t *testing.T) (s *stage, ask func(raw string) (original, ours answer)) {
	s = newStage(t, oneWeb())
	s.target("10.1.0.1:80", echo)
	upstream := s.original("http://10.1.0.1:80")
	return s, func(raw string) (answer, answer) {
		t.Helper()
		return s.ask(upstream, raw), s.ask(s.ours, raw)
	}
}

// alike compares two answers, but for what ours alone has.
func alike(t *testing.T, original, ours answer) {
	t.Helper()
	for _, h := range []http.Header{original.header, ours.header} {
		for _, k := range []string{"Date", "X-Varco-Backend", "Content-Length"} {
			h.Del(k)
		}
	}
	ours.body = withoutForwarded(ours.body)
	if diff := cmp.Diff(withoutForwarded(original.body), ours.body); diff != "" || original.code != ours.code {
		t.Errorf("the original says %d, ours %d; bodies, -original +ours:\n%s", original.code, ours.code, diff)
	}
	if diff := cmp.Diff(original.header, ours.header); diff != "" {
		t.Errorf("headers, -original +ours:\n%s", diff)
	}
}

// withoutForwarded removes the lines of an echo that are ours alone.
func withoutForwarded(body string) string {
	lines := strings.SplitAfter(body, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "X-Forwarded-Prefix:") || strings.HasPrefix(line, "X-Forwarded-Host:") || strings.HasPrefix(line, "X-Forwarded-Proto:")
	}), "")
}

// equally sends requests to both, and wants the same answers, with a code and words in them.
func equally(t *testing.T, code int, words string, raws ...string) {
	t.Helper()
	_, ask := onEcho(t)
	for _, raw := range raws {
		original, ours := ask(raw)
		if original.code != code || !strings.Contains(original.body+fmt.Sprint(original.header), words) {
			t.Errorf("%q: the original says %d %v %q, which is not what this test is about", raw, original.code, original.header, original.body)
		}
		alike(t, original, ours)
	}
}

func testBareGet(t *testing.T) {
	equally(t, 301, "proxy/?a=b", simple("GET", service+"?a=b"), simple("HEAD", service+"?a=b"))
}

func testBarePost(t *testing.T) {
	equally(t, 200, "/\nHost", simple("POST", service), simple("DELETE", service), simple("PUT", service), simple("PATCH", service), simple("OPTIONS", service))
}

func testMethods(t *testing.T) {
	body := "Content-Length: 4"
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET"} {
		equally(t, 200, "BODY", simple(method, service+"/x", body)+"body")
	}
	equally(t, 200, "text/plain", simple("HEAD", service+"/x"))
	for _, method := range []string{"TRACE", "PROPFIND"} {
		const want = `"message":"the server does not allow this method on the requested resource","reason":"MethodNotAllowed","details":{},"code":405`
		if a := newStage(t, oneWeb()).get2(method); a.code != 405 || !strings.Contains(a.body, want) {
			t.Errorf("%s: got %d %s", method, a.code, a.body)
		}
	}
}

// get2 asks with another method.
func (s *stage) get2(method string) answer { return s.ask(s.ours, simple(method, service+"/")) }

func testDryRun(t *testing.T) {
	equally(t, 400, "dryRun is not supported", simple("POST", service+"/x?a=1&dryRun=All"), simple("GET", service+"/x?dryRun="))
}

func testQuery(t *testing.T) {
	equally(t, 200, "/x?a=%2F&b;c=d+e&&=", simple("GET", service+"/x?a=%2F&b;c=d+e&&="))
}

func testTrailingSlash(t *testing.T) {
	equally(t, 200, "/x/\nHost", simple("GET", service+"/x/"))
	equally(t, 200, " /\nHost", simple("GET", service+"/"))
}

func testRawPath(t *testing.T) {
	for path, cleaned := range map[string]string{
		"/a%2Fb": "/a/b", "/a//b": "/a/b", "//a": "/a", "/a/./b": "/a/b", "/a/../b": "/b", "/a%2f..%2fb": "/b", "/%41": "/A", "/a;b=c,d": "/a;b=c,d",
	} {
		_, ask := onEcho(t)
		original, ours := ask(simple("GET", service+path))
		if got, _, _ := strings.Cut(original.body, "\n"); got != "GET "+cleaned+" HTTP/1.1" && got != "GET "+cleaned {
			t.Errorf("%s: the original asks for %q", path, got)
		}
		if got, _, _ := strings.Cut(ours.body, "\n"); got != "GET "+path {
			t.Errorf("%s: ours asks for %q", path, got)
		}
	}
}

func testHost(t *testing.T) { equally(t, 200, "Host: api.example\n", simple("GET", service+"/")) }

func testHeader(t *testing.T) {
	equally(t, 200, "Cookie: a=b; c=d", simple("GET", service+"/", "Cookie: a=b; c=d", "Origin: https://x.example", "User-Agent: me",
		"Accept-Encoding: br", "X-Two: 1", "X-Two: 2", "Connection: x-hop", "X-Hop: gone", "Keep-Alive: 5", "TE: gzip"))
}

func testAuthorization(t *testing.T) {
	_, ask := onEcho(t)
	original, ours := ask(simple("GET", service+"/", "Authorization: Bearer secret", "X-Backend-Authorization: Basic YQ=="))
	if strings.Contains(original.body, "\nAuthorization:") {
		t.Errorf("the original passes it on:\n%s", original.body)
	}
	if !strings.Contains(ours.body, "\nAuthorization: Basic YQ==\n") || strings.Contains(ours.body, "X-Backend") || strings.Contains(ours.body, "secret") {
		t.Errorf("ours sends:\n%s", ours.body)
	}
}

func testIdentityHeaders(t *testing.T) {
	_, ask := onEcho(t)
	_, ours := ask(simple("GET", service+"/", "X-Remote-User: root", "x-remote-group: system:masters", "X_Remote_User: root",
		"X-Remote-Extra-Scopes: all", "X-REMOTE-UID: 1", "Impersonate-User: root", "Impersonate-Extra-A: b", "IMPERSONATE_USER: root"))
	if low := strings.ToLower(ours.body); strings.Contains(low, "remote") || strings.Contains(low, "impersonate") {
		t.Errorf("the target sees:\n%s", ours.body)
	}
}

func testForwardedFor(t *testing.T) {
	equally(t, 200, "X-Forwarded-For: 192.0.2.1, 127.0.0.1\n", simple("GET", service+"/", "X-Forwarded-For: 192.0.2.1"))
}

func testForwarded(t *testing.T) {
	_, ask := onEcho(t)
	original, ours := ask(simple("GET", service+"/a/b?c", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: gopher", "X-Forwarded-Prefix: /x", "X-Forwarded-Uri: /y"))
	if !strings.Contains(original.body, "X-Forwarded-Host: evil.example\n") || !strings.Contains(original.body, "X-Forwarded-Uri: "+service+"/a/b\n") {
		t.Errorf("the original sends:\n%s", original.body)
	}
	for _, line := range []string{"X-Forwarded-Host: api.example", "X-Forwarded-Proto: http", "X-Forwarded-Prefix: " + service, "X-Forwarded-Uri: " + service + "/a/b"} {
		if !strings.Contains(ours.body, line+"\n") {
			t.Errorf("ours sends no %s:\n%s", line, ours.body)
		}
	}
}

func testCompression(t *testing.T) {
	s, ask := onEcho(t)
	_, ours := ask(simple("GET", service+"/"))
	packing := s.clusterTransport()
	packing.DisableCompression = false // as CreateProxyTransport leaves it
	original := s.ask(s.serve(upstream{url.URL{Scheme: "http", Host: "10.1.0.1:80"}, packing}), simple("GET", service+"/"))
	if !strings.Contains(original.body, "Accept-Encoding: gzip\n") || strings.Contains(ours.body, "Accept-Encoding") {
		t.Errorf("the original asks\n%s\nours\n%s", original.body, ours.body)
	}
}
