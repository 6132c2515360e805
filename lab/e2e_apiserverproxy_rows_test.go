package main_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// row is one request that the original and varco are both sent. They must answer the same, unless the row says why not; then
// varco's answer must be as wanted.
type row struct {
	name string
	request
	differs string
	want    func(answer) string // what is wrong with varco's answer, "" if nothing
	http1   bool                // over HTTP/1.1, which has headers that HTTP/2 has not
	// hop says why a request by way of the aggregation layer, which changes requests and answers itself, is not compared.
	hop string
}

// sameAsOriginal sends all rows to the original and to varco, in all ways.
func (p *apiProxies) sameAsOriginal(t *testing.T) {
	pod, h1, h2 := p.echoPod(t), p.httpClient(t), p.httpClient(t)
	h1.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	for _, rows := range [][]row{
		grammarRows(pod), nodeRows(), methodRows(), requestRows(pod), locationRows(pod), answerRows(), pageRows(), errorRows(pod), pathRows(),
	} {
		for _, r := range rows {
			t.Run(strings.ReplaceAll(r.name, " ", "_"), func(t *testing.T) {
				c := h2
				if r.http1 {
					c = h1
				}
				original := send(c, r.build(t, p.original))
				for _, w := range p.ways {
					if w.base == aggregatedBase && r.hop != "" {
						continue
					}
					r.compare(t, w, original, send(c, r.build(t, w)))
				}
			})
		}
	}
}

func (r row) compare(t *testing.T, w way, original, ours answer) {
	t.Helper()
	if w.base == aggregatedBase {
		ours = ours.layered()
	}
	diff := difference(original, ours)
	switch {
	case r.differs == "" && diff != "":
		t.Errorf("%s %s %s:\n%s", w.name, r.method, r.path, diff)
	case r.differs != "" && diff == "":
		t.Errorf("%s %s %s: as the original, though %s: %s", w.name, r.method, r.path, r.differs, ours)
	}
	if r.want != nil {
		if wrong := r.want(ours); wrong != "" {
			t.Errorf("%s %s %s: %s\n%s", w.name, r.method, r.path, wrong, ours)
		}
	}
}

// status wants one, and in the body a text.
func status(code int, text string) func(answer) string {
	return func(a answer) string {
		if a.err != nil || a.status != code || !strings.Contains(string(a.body), text) {
			return fmt.Sprintf("want status %d with %q", code, text)
		}
		return ""
	}
}

// saw wants that a target has answered, and something of the request that it saw.
func saw(what string, get func(path, proto string, h http.Header) string, want string) func(answer) string {
	return func(a answer) string {
		r, ok := a.echoed()
		if got := get(r.Path, r.Proto, r.Headers); !ok || got != want {
			return fmt.Sprintf("the target saw %s %q, want %q", what, got, want)
		}
		return ""
	}
}

func sawPath(want string) func(answer) string {
	return saw("path", func(path, _ string, _ http.Header) string { return path }, want)
}

func sawHeader(name, want string) func(answer) string {
	return saw(name, func(_, _ string, h http.Header) string { return strings.Join(h[name], "|") }, want)
}

// headerIs wants a header of the answer.
func headerIs(name string, want ...string) func(answer) string {
	return func(a answer) string {
		if got := a.header[name]; strings.Join(got, "|") != strings.Join(want, "|") {
			return fmt.Sprintf("%s is %q, want %q", name, got, want)
		}
		return ""
	}
}

func both(checks ...func(answer) string) func(answer) string {
	return func(a answer) string {
		for _, c := range checks {
			if wrong := c(a); wrong != "" {
				return wrong
			}
		}
		return ""
	}
}

// Why some requests are not compared by way of the aggregation layer.
const (
	noRedirects = "the aggregation layer lets no redirects through, and takes links for those to its own server"
	otherGroup  = "the other group is in the words"
)

const (
	ns       = "namespaces/default/"
	services = ns + "services/"
	pods     = ns + "pods/"
)

// grammarRows are names of pods and Services, with schemes and ports.
func grammarRows(pod *corev1.Pod) []row {
	self := pods + pod.Name
	same := func(name, path string) row { return row{name: name, request: request{path: path}} }
	return []row{
		same("Service", services+"plain/proxy/a/b?x=1&y=2"),
		same("Service and port", services+"plain:80/proxy/"),
		same("Service and port name", services+"web:http/proxy/"),
		same("Service, scheme and port name", services+"http:web:http/proxy/"),
		same("Service and empty scheme", services+":web:http/proxy/"),
		same("Service over TLS", services+"https:web:https/proxy/"),
		same("Service over TLS by number", services+"https:web:443/proxy/"),
		same("Service over TLS, no port", services+"https:secure:/proxy/"),
		same("headless Service", services+"headless/proxy/"),
		same("Service of IPv6", services+"six/proxy/"),
		same("several ports and none named", services+"web/proxy/"),
		same("port that is none", services+"web:9/proxy/"),
		same("port name that is none", services+"web:nothing/proxy/"),
		same("port out of range", services+"plain:70000/proxy/"),
		same("no endpoints", services+"empty/proxy/"),
		same("ExternalName", services+"external/proxy/"),
		same("ExternalName and port", services+"external:80/proxy/"),
		same("no such Service", services+"none/proxy/"),
		same("no such Service over TLS", services+"https:none:443/proxy/"),
		same("no such namespace", "namespaces/nowhere/services/none/proxy/"),
		same("four parts", services+"a:b:c:d/proxy/"),
		same("other scheme", services+"ftp:plain:80/proxy/"),
		same("scheme in capitals", services+"HTTPS:web:443/proxy/"),
		same("empty name", services+":80/proxy/"),
		same("empty name and port", services+"http::80/proxy/"),
		same("only colons", services+"::/proxy/"),
		same("pod", self+"/proxy/x"),
		same("pod and port", self+":8080/proxy/x"),
		same("pod over TLS", pods+"https:"+pod.Name+":8443/proxy/x"),
		same("pod, scheme and no port", pods+"http:"+pod.Name+":/proxy/x"),
		same("pod and undeclared port", pods+"onhost:8080/proxy/"),
		same("pod without ports", pods+"bare/proxy/x"),
		same("pod without ports over TLS", pods+"https:bare:/proxy/x"),
		same("no such pod", pods+"none/proxy/x"),
		same("pod and four parts", pods+"a:b:c:d/proxy/"),
		same("pod and other scheme", pods+"ws:a:80/proxy/"),
		{name: "the only port has a name", request: request{path: services + "one-named/proxy/x"},
			differs: "the original takes an unnamed port only (k/k#20070)", want: sawPath("/x")},
		{name: "port of a pod by name", request: request{path: self + ":http/proxy/x"},
			differs: "the original takes the name for a host's service", want: sawPath("/x")},
		{name: "port of a pod by another name", request: request{path: self + ":nothing/proxy/x"},
			differs: "the original tries to dial it", want: status(http.StatusServiceUnavailable, "nothing")},
		{name: "appProtocol https", request: request{path: services + "secure/proxy/x"},
			differs: "the original ignores appProtocol", want: sawPath("/x")},
		same("API server as a Service", services+"https:kubernetes:https/proxy/version"),
	}
}

// nodeRows are names of nodes.
func nodeRows() []row {
	same := func(name, path string) row { return row{name: name, request: request{path: path}} }
	return []row{
		same("node", "nodes/node-1/proxy/healthz"),
		same("node and kubelet port", "nodes/node-1:10250/proxy/healthz"),
		same("node, scheme and kubelet port", "nodes/https:node-1:10250/proxy/healthz"),
		same("node, http and kubelet port", "nodes/http:node-1:10250/proxy/healthz"),
		same("node and other port", "nodes/node-1:8080/proxy/x"),
		same("node and port of nobody", "nodes/node-1:9/proxy/x"),
		same("path that the kubelet has not", "nodes/node-1/proxy/nothing"),
		same("no such node", "nodes/none/proxy/healthz"),
		same("node and four parts", "nodes/a:b:c:d/proxy/healthz"),
		same("node and other scheme", "nodes/ftp:node-1:80/proxy/healthz"),
		{name: "bare node", request: request{path: "nodes/node-1/proxy"}, hop: noRedirects},
	}
}

// methodRows send all methods, with a path and without.
func methodRows() (rows []row) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		for name, path := range map[string]string{"bare": "", "root": "/", "path": "/some/path", "query": "?method=x"} {
			for kind, of := range map[string]string{"Service": services + "plain", "pod": pods + "bare"} {
				r := row{name: method + " " + name + " " + kind, request: request{method: method, path: of + "/proxy" + path}}
				if !strings.HasPrefix(path, "/") && (method == "GET" || method == "HEAD") {
					r.hop = noRedirects
				}
				rows = append(rows, r)
			}
		}
	}
	for _, method := range []string{"TRACE", "PROPFIND"} {
		rows = append(rows, row{name: method, request: request{method: method, path: services + "plain/proxy/x"}, hop: otherGroup})
	}
	return append(rows,
		row{name: "body", request: request{method: "POST", path: pods + "bare/proxy/upload", body: strings.Repeat("0123456789", 300_000)}},
		row{name: "body of a DELETE", request: request{method: "DELETE", path: services + "plain/proxy/x", body: "text"}},
		row{name: "dryRun", request: request{method: "POST", path: services + "plain/proxy/x?dryRun=All"}},
		row{name: "dryRun, empty", request: request{path: services + "plain/proxy/x?a=b&dryRun="}},
	)
}

// requestRows are headers of requests.
func requestRows(pod *corev1.Pod) []row {
	with := func(name, value string) request {
		return request{path: pods + pod.Name + "/proxy/x", header: map[string]string{name: value}}
	}
	const hop = "the aggregation layer sets it for its own hop"
	return []row{
		{name: "no header", request: request{path: pods + pod.Name + "/proxy/x"}},
		{name: "Cookie", request: with("Cookie", "a=b; c=d"), want: sawHeader("Cookie", "a=b; c=d")},
		{name: "Origin", request: with("Origin", "https://page.test"), want: sawHeader("Origin", "https://page.test")},
		{name: "Forwarded", request: with("Forwarded", "for=192.0.2.1"), want: sawHeader("Forwarded", "for=192.0.2.1")},
		{name: "X-Forwarded-For", request: with("X-Forwarded-For", "192.0.2.1"), hop: hop},
		{name: "X-Forwarded-Host", request: with("X-Forwarded-Host", "spoofed.test"), hop: hop, want: sawHeader("X-Forwarded-Host", hostHeader)},
		{name: "X-Forwarded-Proto", request: with("X-Forwarded-Proto", "gopher"), hop: hop, want: sawHeader("X-Forwarded-Proto", "https")},
		{name: "X-Forwarded-Uri", request: with("X-Forwarded-Uri", "/spoofed"), hop: hop},
		{name: "hop by hop", http1: true, want: sawHeader("X-Mine", ""),
			request: request{path: pods + "bare/proxy/x", header: map[string]string{"Connection": "X-Mine", "X-Mine": "1", "Keep-Alive": "5"}}},
		{name: "TE", request: with("Te", "trailers")},
		{name: "user agent", request: with("User-Agent", "")},
		{name: "X-Remote-User", request: with("X-Remote-User", "root"), want: sawHeader("X-Remote-User", "")},
		{name: "X-Remote-Group", request: with("X-Remote-Group", "system:masters"), want: sawHeader("X-Remote-Group", "")},
		{name: "X-Remote-Extra", request: with("X-Remote-Extra-Scopes", "all"), want: sawHeader("X-Remote-Extra-Scopes", "")},
		{name: "X-Remote-Uid", request: with("X-Remote-Uid", "0"), want: sawHeader("X-Remote-Uid", "")},
		{name: "impersonated", request: with("Impersonate-User", "somebody"), want: status(http.StatusForbidden, `User \"somebody\"`),
			hop: otherGroup},
		{name: "wrong token", request: with("Authorization", "Bearer wrong"), want: sawHeader("Authorization", "")},
		{name: "authorization for the target", request: with("X-Backend-Authorization", "Basic abc"),
			differs: "the original has no way to send one", want: both(sawHeader("Authorization", "Basic abc"), sawHeader("X-Backend-Authorization", ""))},
		{name: "If-None-Match", request: request{path: services + "plain/proxy/page", header: map[string]string{"If-None-Match": `"page"`}}},
		{name: "Expect", request: request{method: "POST", path: pods + "bare/proxy/upload", body: "x", header: map[string]string{"Expect": "100-continue"}}},
	}
}

// locationRows are redirects of a target.
func locationRows(pod *corev1.Pod) (rows []row) {
	for name, to := range map[string]string{
		"absolute path": "/there?x=1", "relative": "there", "up": "../there", "query": "?x=1", "other host": "http://elsewhere.test/x",
		"no scheme": "//elsewhere.test/x", "own address": "http://" + pod.Status.PodIP + ":8080/there",
		"own address over TLS": "https://" + pod.Status.PodIP + ":8080/there", "own address, other port": "http://" + pod.Status.PodIP + ":81/there",
		"asked host": "http://" + hostHeader + "/there", "already moved": coreBase + "/" + pods + pod.Name + ":8080/proxy/there",
		"escaped": "/a%20b", "fragment": "/x#y", "not a URL": "http://[::1", "empty": "",
	} {
		for _, code := range []int{201, 302, 307, 200} {
			rows = append(rows, row{name: fmt.Sprintf("Location %s %d", name, code), hop: noRedirects, request: request{
				path: fmt.Sprintf("%s%s:8080/proxy/answer?status=%d&header=%s", pods, pod.Name, code, url.QueryEscape("Location:"+to)),
			}})
		}
	}
	prefix := coreBase + "/" + services + "plain/proxy"
	return append(rows, row{name: "Location with an escaped slash", request: request{path: services + "plain/proxy/redirect?to=/a%252Fb"},
		differs: "the original changes paths (k/k#14193)", hop: noRedirects,
		want: func(a answer) string { return headerIs("Location", prefix+"/a%2Fb")(a.plain()) }})
}

// answerRows are statuses and headers of answers.
func answerRows() []row {
	of := func(header ...string) request {
		path := services + "plain/proxy/answer?body=x"
		for _, h := range header {
			path += "&header=" + url.QueryEscape(h)
		}
		return request{path: path}
	}
	prefix := coreBase + "/" + services + "plain/proxy"
	rows := []row{
		{name: "CORS", request: of("Access-Control-Allow-Origin:*", "Access-Control-Allow-Credentials:true", "Access-Control-Allow-Headers:X",
			"Access-Control-Allow-Methods:GET", "Access-Control-Expose-Headers:X", "Access-Control-Max-Age:1"), want: headerIs("Access-Control-Allow-Origin")},
		{name: "headers twice", request: of("X-A:1", "X-A:2"), want: headerIs("X-A", "1", "2")},
		{name: "hop by hop of the target", request: of("Connection:X-B", "X-B:1", "Keep-Alive:1"), want: headerIs("X-B")},
		{name: "content type of nobody", request: of("Content-Type:")},
		{name: "Vary and Cache-Control", request: of("Vary:Cookie", "Cache-Control:max-age=9")},
		{name: "cookie", request: of("Set-Cookie:a=b; Path=/shop; HttpOnly"),
			differs: "the original leaves paths of cookies that lead nowhere", want: func(a answer) string {
				return headerIs("Set-Cookie", "a=b; Path="+prefix+"/shop; HttpOnly")(a.plain())
			}},
		{name: "Refresh", request: of("Refresh:5; url=/x"), differs: "the original leaves links that lead nowhere",
			want: func(a answer) string { return headerIs("Refresh", "5; url="+prefix+"/x")(a.plain()) }},
		{name: "Content-Location", request: of("Content-Location:/x"), differs: "the original leaves links that lead nowhere",
			want: func(a answer) string { return headerIs("Content-Location", prefix+"/x")(a.plain()) }},
		{name: "Link", request: of("Link:</x>; rel=next"), differs: "the original leaves links that lead nowhere",
			want: func(a answer) string { return headerIs("Link", "<"+prefix+"/x>; rel=next")(a.plain()) }},
	}
	for _, code := range []int{200, 201, 202, 204, 205, 206, 300, 304, 400, 401, 403, 404, 409, 418, 429, 500, 502, 503, 504, 599} {
		rows = append(rows, row{name: fmt.Sprint("status ", code), request: request{path: fmt.Sprint(services, "plain/proxy/status/", code)}})
	}
	return rows
}

// pageRows are HTML pages.
func pageRows() []row {
	const better = "the original's answer to it is broken"
	page := func(query string, header map[string]string) request {
		return request{path: services + "plain/proxy/page" + query, header: header}
	}
	const retag = "the page is another one, and so its ETag must be"
	return []row{
		{name: "page", request: page("", nil), differs: retag, want: moved(nil)},
		{name: "page by gzip", request: page("?encoding=gzip", nil), differs: retag + "; what is packed may differ", want: moved(gunzip)},
		{name: "page by deflate", request: page("?encoding=deflate", nil), differs: better},
		{name: "page by raw deflate", request: page("?encoding=raw-deflate", nil), differs: retag, want: moved(inflate)},
		{name: "page by br", request: page("?encoding=br", nil), differs: better, want: status(http.StatusOK, "")},
		{name: "page by zstd", request: page("?encoding=zstd", nil), differs: better, want: status(http.StatusOK, "")},
		{name: "page not read", request: request{method: "HEAD", path: services + "plain/proxy/page"}, differs: better, want: status(http.StatusOK, "")},
		{name: "page by gzip, not read", request: request{method: "HEAD", path: services + "plain/proxy/page?encoding=gzip"},
			differs: better, want: status(http.StatusOK, "")},
		{name: "part of a page", request: page("", map[string]string{"Range": "bytes=0-99"}), differs: "the original changes its length",
			want: both(status(http.StatusPartialContent, "<!DOCTYPE html>"), headerIs("Content-Length", "100"))},
		{name: "long page", request: page("?n=1000000", nil), differs: retag, want: moved(nil)},
		{name: "text that looks like a page", request: request{path: services + "plain/proxy/answer?header=Content-Type:text/plain&body=" + url.QueryEscape(`<a href="/x">`)},
			want: status(http.StatusOK, `<a href="/x">`)},
	}
}

// moved wants the links of the page below the prefix.
func moved(unpack func(io.Reader) (io.Reader, error)) func(answer) string {
	return func(a answer) string {
		in := io.Reader(bytes.NewReader(a.body))
		if unpack != nil && a.header.Get("Content-Encoding") != "" { // the aggregation layer asks for gzip itself, and unpacks it
			var err error
			if in, err = unpack(in); err != nil {
				return fmt.Sprintf("unpack the page: %v", err)
			}
		}
		text, err := io.ReadAll(in)
		page := strings.ReplaceAll(string(text), aggregatedBase, coreBase)
		if link := `href="` + coreBase + "/" + services + `plain/proxy/absolute?x=1&amp;y=2"`; err != nil || !strings.Contains(page, link) {
			return fmt.Sprintf("want %s in the page: %v", link, err)
		}
		if etag := a.header.Get("Etag"); etag == `"page"` {
			return "the ETag is that of the page before it was changed"
		}
		return ""
	}
}

func gunzip(r io.Reader) (io.Reader, error)  { return gzip.NewReader(r) }
func inflate(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil }

// errorRows are errors in all encodings of the API.
func errorRows(pod *corev1.Pod) (rows []row) {
	for _, accept := range []string{"", "*/*", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/html",
		"application/cbor", "application/xml"} {
		for name, path := range map[string]string{
			"not found": services + "none/proxy/", "bad request": services + "a:b:c:d/proxy/", "unavailable": services + "empty/proxy/",
			"refused connection": pods + pod.Name + ":9999/proxy/",
		} {
			rows = append(rows, row{name: name + " as " + accept, request: request{path: path, header: map[string]string{"Accept": accept}}})
		}
	}
	return rows
}

// pathRows are paths at the target.
func pathRows() []row {
	const raw = "the original changes paths (k/k#14193)"
	const young = "the group is younger than the verb"
	const decodes = "the aggregation layer decodes paths and writes queries anew"
	at := func(path string) request { return request{path: services + "plain/proxy" + path} }
	return []row{
		{name: "spaces and percent", request: at("/a%20b%25c?d%20e=%2F"), want: sawPath("/a%20b%25c?d%20e=%2F"), hop: decodes},
		{name: "slash at the end", request: at("/a/b/"), want: sawPath("/a/b/")},
		{name: "semicolon", request: at("/a;b=c/d?x;y"), want: sawPath("/a;b=c/d?x;y"), hop: decodes},
		{name: "no ASCII", request: at("/%C3%A9"), want: sawPath("/%C3%A9")},
		{name: "encoded slash", request: at("/a%2Fb"), differs: raw, want: sawPath("/a%2Fb"), hop: decodes},
		{name: "two slashes", request: at("/a//b"), differs: raw, want: sawPath("/a//b"), hop: decodes},
		{name: "slashes at the begin", request: at("//a"), differs: raw, want: sawPath("//a"), hop: decodes},
		{name: "dot", request: at("/a/./b"), differs: raw, want: sawPath("/a/./b"), hop: decodes},
		{name: "dots", request: at("/a/../b"), differs: raw, want: sawPath("/a/../b"), hop: decodes},
		{name: "the old verb", request: request{path: "proxy/namespaces/default/services/plain/x"}, differs: "the original no longer knows what it was",
			want: status(http.StatusGone, "/api/v1/namespaces/default/services/plain/proxy/x"), hop: young},
		{name: "the old redirect", request: request{path: "redirect/nodes/node-1"}, differs: "the original no longer knows what it was",
			want: status(http.StatusGone, "/api/v1/nodes/node-1/proxy"), hop: young},
	}
}
