package rewrite_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/proxy"

	"varco.dev/internal/httpproxy/rewrite"
)

// question is an answer of a target, and who asked for it.
type question struct {
	source      string // URL of the target
	requestHost string // empty: the source's
	scheme      string
	host        string
	prefix      string
	contentType string
	location    string
	body        string
}

func (q question) request(t testing.TB) *http.Request {
	u, err := url.Parse(q.source)
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{Method: http.MethodGet, URL: u, Host: q.requestHost, Header: http.Header{}}
	if r.Host == "" {
		r.Host = u.Host
	}
	return r
}

func (q question) answer(r *http.Request) *http.Response {
	h := http.Header{}
	if q.contentType != "" {
		h.Set("Content-Type", q.contentType)
	}
	if q.location != "" {
		h.Set("Location", q.location)
	}
	return &http.Response{StatusCode: 200, Request: r, Header: h, ContentLength: int64(len(q.body)), Body: io.NopCloser(strings.NewReader(q.body))}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// reply is what the client gets.
type reply struct{ location, body, err string }

func replyOf(t testing.TB, resp *http.Response, err error) reply {
	if err != nil {
		return reply{err: err.Error()}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{location: resp.Header.Get("Location"), body: string(body)}
}

// original is what Kubernetes makes of it.
func (q question) original(t testing.TB) reply {
	transport := &proxy.Transport{Scheme: q.scheme, Host: q.host, PathPrepend: q.prefix,
		RoundTripper: roundTripper(func(r *http.Request) (*http.Response, error) { return q.answer(r), nil })}
	resp, err := transport.RoundTrip(q.request(t))
	return replyOf(t, resp, err)
}

// ours is what this package makes of it.
func (q question) ours(t testing.TB) reply {
	r := q.request(t)
	resp := q.answer(r)
	err := rewrite.Response(resp, rewrite.Page{Scheme: q.scheme, Host: q.host, Prefix: q.prefix, RequestPath: r.URL.EscapedPath()})
	return replyOf(t, resp, err)
}

const node = "/proxy/node/node1:10250"

// TestUpstream runs the cases of Kubernetes' own test (apimachinery, util/proxy/transport_test.go, TestProxyTransport)
// against both.
func TestUpstream(t *testing.T) {
	const page = `<pre><a href="kubelet.log">kubelet.log</a><a href="/google.log">google.log</a></pre>`
	const moved = `<pre><a href="kubelet.log">kubelet.log</a><a href="http://foo.com/proxy/node/node1:10250/google.log">google.log</a></pre>`
	foo := question{source: "http://mynode.com/logs/log.log", scheme: "http", host: "foo.com", prefix: node, contentType: "text/html"}
	with := func(edit func(*question)) question { q := foo; edit(&q); return q }
	html := func(source, body string) question {
		return with(func(q *question) { q.source, q.body = source, body })
	}
	redirect := func(location string) question {
		return with(func(q *question) { q.source, q.location, q.contentType = "http://mynode.com/redirect", location, "" })
	}
	bare := func(location string) question {
		q := redirect(location)
		q.scheme, q.host, q.requestHost = "", "", "10.0.0.1:8001"
		return q
	}
	for name, c := range map[string]struct {
		question
		want reply
	}{
		"normal": {html("http://mynode.com/logs/log.log", page), reply{body: moved}},
		"full document": {html("http://mynode.com/logs/log.log", "<html><header></header><body>"+page+"</body></html>"),
			reply{body: "<html><header></header><body>" + moved + "</body></html>"}},
		"trailing slash": {html("http://mynode.com/logs/log.log", strings.ReplaceAll(page, "/google.log", "/google.log/")),
			reply{body: strings.ReplaceAll(moved, "/google.log", "/google.log/")}},
		"content-type charset":     {with(func(q *question) { q.body, q.contentType = page, "text/html; charset=utf-8" }), reply{body: moved}},
		"content-type passthrough": {with(func(q *question) { q.body, q.contentType = page, "text/plain" }), reply{body: page}},
		"subdir": {with(func(q *question) {
			q.source, q.scheme, q.prefix = "http://mynode.com/whatever/apt/somelog.log", "https", "/proxy/node/node1:8080"
			q.body = `<a href="kubelet.log">kubelet.log</a><a href="/google.log">google.log</a>`
		}), reply{body: `<a href="kubelet.log">kubelet.log</a><a href="https://foo.com/proxy/node/node1:8080/google.log">google.log</a>`}},
		"image": {html("http://mynode.com/", `<pre><img src="kubernetes.jpg"/><img src="/kubernetes_abs.jpg"/></pre>`),
			reply{body: `<pre><img src="kubernetes.jpg"/><img src="http://foo.com/proxy/node/node1:10250/kubernetes_abs.jpg"/></pre>`}},
		"abs": {html("http://mynode.com/any/path/", `<script src="http://google.com/kubernetes.js"/>`),
			reply{body: `<script src="http://google.com/kubernetes.js"/>`}},
		"abs but same host": {html("http://mynode.com/any/path/", `<script src="http://mynode.com/kubernetes.js"/>`),
			reply{body: `<script src="http://foo.com/proxy/node/node1:10250/kubernetes.js"/>`}},
		"source contains the redirect already": {html("http://foo.com/logs/log.log", moved), reply{body: moved}},
		"no host":                              {with(func(q *question) { q.scheme, q.host, q.body = "https", "", "<html></html>" }), reply{body: "<html></html>"}},
		"no scheme":                            {with(func(q *question) { q.scheme, q.body = "", "<html></html>" }), reply{body: "<html></html>"}},
		"forwarded URI must be escaped": {html("http://mynode.com/logs/log.log%00<script>alert(1)</script>", "<html></html>"),
			reply{body: "<html></html>"}},
		"redirect rel": {redirect("/redirected/target/"), reply{location: "http://foo.com/proxy/node/node1:10250/redirected/target/"}},
		"redirect abs same host": {redirect("http://mynode.com/redirected/target/"),
			reply{location: "http://foo.com/proxy/node/node1:10250/redirected/target/"}},
		"redirect abs other host": {redirect("http://example.com/redirected/target/"), reply{location: "http://example.com/redirected/target/"}},
		"redirect abs use reqHost no host no scheme": {bare("http://10.0.0.1:8001/redirected/target/"),
			reply{location: "http://10.0.0.1:8001/proxy/node/node1:10250/redirected/target/"}},
		"redirect rel must be escaped": {redirect("/redirected/target/%00<script>alert(1)</script>/"),
			reply{location: "http://foo.com/proxy/node/node1:10250/redirected/target/%00%3Cscript%3Ealert%281%29%3C/script%3E/"}},
		"redirect abs same host must be escaped": {redirect("http://mynode.com/redirected/target/%00<script>alert(1)</script>/"),
			reply{location: "http://foo.com/proxy/node/node1:10250/redirected/target/%00%3Cscript%3Ealert%281%29%3C/script%3E/"}},
		"redirect abs other host must be escaped": {redirect("http://example.com/redirected/target/%00<script>alert(1)</script>/"),
			reply{location: "http://example.com/redirected/target/%00%3Cscript%3Ealert%281%29%3C/script%3E/"}},
		"redirect abs use reqHost no host no scheme must be escaped": {bare("http://10.0.0.1:8001/redirected/target/%00<script>alert(1)</script>/"),
			reply{location: "http://10.0.0.1:8001/proxy/node/node1:10250/redirected/target/%00%3Cscript%3Ealert%281%29%3C/script%3E/"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.original(t); got != c.want {
				t.Errorf("the original: got %+v\nwant %+v", got, c.want)
			}
			if got := c.ours(t); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestConformance is the page that test/e2e/network/proxy.go compares byte by byte.
func TestConformance(t *testing.T) {
	q := question{source: "http://10.0.0.9:1080/", requestHost: "api:6443", prefix: "/api/v1/namespaces/n/pods/p:1080/proxy",
		contentType: "text/html", body: `<a href="/rewriteme">test</a>`}
	want := `<a href="/api/v1/namespaces/n/pods/p:1080/proxy/rewriteme">test</a>`
	if got := q.ours(t).body; got != want || q.original(t).body != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	q.prefix += "/"
	if got := q.ours(t).body; got != want {
		t.Errorf("with a slash at the end of the prefix: got %s", got)
	}
}

// TestSmallAndLong is TestRewriteResponse of the same file: pages without links come back as they were.
func TestSmallAndLong(t *testing.T) {
	for _, c := range codings() {
		for _, text := range []string{"short body test", strings.Repeat("long body test", 4097)} {
			resp := packed(t, c, []byte(text))
			if err := rewrite.Response(resp, rewrite.Page{Prefix: node}); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got = c.decode(t, bytes.NewReader(got)); string(got) != text {
				t.Errorf("%s: got %d bytes, want %d", c.name, len(got), len(text))
			}
		}
	}
}
