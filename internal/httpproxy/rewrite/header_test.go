package rewrite_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/httpproxy/rewrite"
)

// at is a page whose prefix is /p.
func at(path string) rewrite.Page {
	return rewrite.Page{Prefix: "/p", TargetHost: "10.1.1.1:8080", RequestHost: "api:6443", RequestPath: path}
}

func response(code int, method, body string, header http.Header) *http.Response {
	r := &http.Request{Method: method, URL: &url.URL{Scheme: "http", Host: "10.1.1.1:8080", Path: "/x"}, Host: "api:6443", Header: http.Header{}}
	return &http.Response{StatusCode: code, Request: r, Header: header, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"Content-Location", "/a", "/p/a"},
		{"Content-Location", "http://10.1.1.1:8080/a", "/p/a"},
		{"Content-Location", "a", "a"},
		{"Content-Location", "/%zz", "/p/%zz"},
		{"Content-Location", "/p/a", "/p/a"},
		{"Service-Worker-Allowed", "/", "/p/"},
		{"Service-Worker-Allowed", "/p/", "/p/"},
		{"Service-Worker-Allowed", "http://10.1.1.1:8080/a/", "/p/a/"},
		{"Service-Worker-Allowed", "../../../", "/p/"},
		{"Service-Worker-Allowed", "a/", "/p/a/"},
		{"Service-Worker-Allowed", `\`, "/p/"},
		{"Service-Worker-Allowed", `..\..\`, "/p/"},
		{"Service-Worker-Allowed", `/p/..\..\x`, "/p/x"},
		{"Service-Worker-Allowed", "/.\t./", "/p/"},
		{"Service-Worker-Allowed", "http:..", "/p/"},
		{"Service-Worker-Allowed", "//example.com/", "/p/"},
		{"Sourcemap", "/a.js.map", "/p/a.js.map"},
		{"Refresh", "5; url=/a", "5; url=/p/a"},
		{"Refresh", "5;URL = '/a' x", "5;URL = '/p/a' x"},
		{"Refresh", `0.5, "/a`, `0.5, "/p/a`},
		{"Refresh", " 5 /a ", " 5 /p/a "},
		{"Refresh", "5; url=http://10.1.1.1:8080/a?b", "5; url=/p/a?b"},
		{"Refresh", "5; url=a", "5; url=a"},
		{"Refresh", "5", "5"},
		{"Refresh", "5;", "5;"},
		{"Refresh", "5; url=", "5; url="},
		{"Refresh", "url=/a", "url=/a"},
		{"Refresh", "5/a", "5/a"},
		{"Refresh", "", ""},
		{"Link", `</a>; rel="next", <b>; rel=prev,<http://10.1.1.1:8080/c,d>`, `</p/a>; rel="next", <b>; rel=prev,</p/c,d>`},
		{"Link", `</a>; title="</b>, \"</c>", </d>`, `</p/a>; title="</b>, \"</c>", </p/d>`},
		{"Link", `</a>; anchor="/b"; rel=preload`, `</p/a>; anchor="/b"; rel=preload`},
		{"Link", `<https://example.com/a>`, `<https://example.com/a>`},
		{"Link", `</a`, `</a`},
		{"Link", `</a>; title="`, `</p/a>; title="`},
		{"X-Other", "/a", "/a"},
		{"Content-Security-Policy", "report-uri /a", "report-uri /a"},
	} {
		h := http.Header{c.name: {c.value, c.value}}
		shared := h[c.name]
		if err := rewrite.Response(response(200, "GET", "", h), at("/x")); err != nil {
			t.Fatal(err)
		}
		if got := h[c.name]; got[0] != c.want || got[1] != c.want || shared[0] != c.value {
			t.Errorf("%s: %s: got %q, want %q; what was shared is %q", c.name, c.value, got, c.want, shared)
		}
	}
}

// TestCORS is that the four fields that Kubernetes removes go, and no others.
func TestCORS(t *testing.T) {
	h := http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Allow-Headers": {"a"},
		"Access-Control-Allow-Methods": {"GET"}, "Access-Control-Expose-Headers": {"a"}, "Access-Control-Max-Age": {"1"}, "Vary": {"Origin"}}
	if err := rewrite.Response(response(204, "OPTIONS", "", h), at("/x")); err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Access-Control-Expose-Headers": {"a"}, "Access-Control-Max-Age": {"1"}, "Vary": {"Origin"}}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
}

const link, moved = `<a href="/x">`, `<a href="/p/x">`

// TestWhichPages are moved, and which are not.
func TestWhichPages(t *testing.T) {
	html := func(more ...string) http.Header {
		h := http.Header{"Content-Type": {"text/html"}}
		for i := 0; i < len(more); i += 2 {
			h.Add(more[i], more[i+1])
		}
		return h
	}
	for _, c := range []struct {
		name    string
		resp    *http.Response
		changed bool
	}{
		{"GET", response(200, "GET", link, html()), true},
		{"POST", response(201, "POST", link, html()), true},
		{"an error", response(404, "GET", link, html()), true},
		{"a redirect", response(302, "GET", link, html("Location", "/x")), true},
		{"identity", response(200, "GET", link, html("Content-Encoding", "identity")), true},
		{"no-transform is for those who shrink images, and Kubernetes does not heed it", response(200, "GET", link, html("Cache-Control", "no-transform")), true},
		{"charset", response(200, "GET", link, http.Header{"Content-Type": {`text/html ; Charset="Shift_JIS"`}}), true},
		{"a part", response(206, "GET", link, html("Content-Range", "bytes 0-9/20")), false},
		{"a part that says it is all", response(200, "GET", link, html("Content-Range", "bytes 0-9/20")), false},
		{"parts", response(206, "GET", link, http.Header{"Content-Type": {"multipart/byteranges; boundary=x"}}), false},
		{"no type", response(200, "GET", link, http.Header{}), false},
		{"text", response(200, "GET", link, http.Header{"Content-Type": {"text/plain"}}), false},
		{"XHTML", response(200, "GET", link, http.Header{"Content-Type": {"application/xhtml+xml"}}), false},
		{"UTF-16", response(200, "GET", link, http.Header{"Content-Type": {"text/html;charset=utf-16"}}), false},
		{"UTF-32", response(200, "GET", link, http.Header{"Content-Type": {`text/html; charset="UTF-32BE"`}}), false},
		{"ISO 2022", response(200, "GET", link, http.Header{"Content-Type": {"text/html; charset=iso-2022-jp"}}), false},
		{"unknown encoding", response(200, "GET", link, html("Content-Encoding", "compress")), false},
		{"two encodings", response(200, "GET", link, html("Content-Encoding", "gzip, br")), false},
		{"two lines of encodings", response(200, "GET", link, html("Content-Encoding", "gzip", "Content-Encoding", "gzip")), false},
	} {
		h := c.resp.Header
		h.Set("Etag", `"v1"`)
		h.Set("Content-Length", "13")
		for _, name := range []string{"Digest", "Content-Digest", "Repr-Digest", "Content-Md5", "Accept-Ranges"} {
			h.Set(name, "x")
		}
		c.resp.Trailer = http.Header{"Digest": nil, "X-Other": nil}
		before := h.Clone()
		if err := rewrite.Response(c.resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		c.resp.Trailer.Set("Digest", "as net/http does at the end")
		body, err := io.ReadAll(c.resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if c.changed {
			if string(body) != moved || c.resp.ContentLength != -1 || len(c.resp.Trailer) != 1 || h.Get("Etag") != `W/"v1"` ||
				h.Get("Content-Length")+h.Get("Digest")+h.Get("Content-Digest")+h.Get("Repr-Digest")+h.Get("Content-Md5")+h.Get("Accept-Ranges") != "" {
				t.Errorf("%s: got %q, %d, %v, %v", c.name, body, c.resp.ContentLength, h, c.resp.Trailer)
			}
			continue
		}
		if d := cmp.Diff(before, h); d != "" || string(body) != link || c.resp.ContentLength != int64(len(link)) || len(c.resp.Trailer) != 2 {
			t.Errorf("%s: got %q, %d, %v %s", c.name, body, c.resp.ContentLength, c.resp.Trailer, d)
		}
	}
}

// TestWithoutBody are answers without one: their header is what it would be with it, as far as that is known.
func TestWithoutBody(t *testing.T) {
	header := func() http.Header {
		return http.Header{"Content-Type": {"text/html"}, "Content-Length": {"13"}, "Content-Encoding": {"br"}, "Etag": {`"v1"`}}
	}
	for _, c := range []struct {
		name   string
		resp   *http.Response
		page   rewrite.Page
		length int64
		want   http.Header
	}{
		{"HEAD", response(200, "HEAD", "", header()), at("/x"), -1, http.Header{"Content-Type": {"text/html"}, "Content-Encoding": {"br"}, "Etag": {`W/"v1"`}}},
		{"204", response(204, "DELETE", "", header()), at("/x"), 0, header()},
		{"304", response(304, "GET", "", header()), at("/x"), 0, header()},
		{"103", response(103, "GET", "", header()), at("/x"), 0, header()},
		{"nothing", response(200, "GET", "", header()), at("/x"), 0, header()},
	} {
		c.resp.ContentLength, c.resp.Body = max(c.length, 0), http.NoBody
		if err := rewrite.Response(c.resp, c.page); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, c.resp.Header); d != "" || c.resp.Body != http.NoBody || c.resp.ContentLength != c.length {
			t.Errorf("%s: %d %s", c.name, c.resp.ContentLength, d)
		}
	}
}

// TestETags is what a client sees, and what comes of asking again with it.
func TestETags(t *testing.T) {
	for tag, want := range map[string]string{`"v1"`: `W/"v1"`, `W/"v1"`: `W/"v1"`, `""`: `W/""`, `v1`: "", `"`: "", "": ""} {
		resp := response(200, "GET", link, http.Header{"Content-Type": {"text/html"}, "Etag": {tag}})
		if err := rewrite.Response(resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Etag"); got != want {
			t.Errorf("%s: got %s, want %s", tag, got, want)
		}
	}
	for asked, want := range map[string]string{`W/"v1"`: `W/"v1"`, `"v0", W/"v1"`: `W/"v1"`, `"v1"`: `"v1"`, `W/"v11"`: `"v1"`, "*": `"v1"`, "": `"v1"`} {
		resp := response(304, "GET", "", http.Header{"Etag": {`"v1"`}})
		resp.Request.Header.Set("If-None-Match", asked)
		if err := rewrite.Response(resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Etag"); got != want {
			t.Errorf("304 to %s: got %s, want %s", asked, got, want)
		}
	}
}

// TestETagMatches is that net/http, and all who follow RFC 9110, match the weak tag that a client got from here.
func TestETagMatches(t *testing.T) {
	target := func(r *http.Request) *http.Response {
		w := &recorder{header: http.Header{"Etag": {`"v1"`}, "Content-Type": {"text/html"}}}
		http.ServeContent(w, r, "", serverTime(), strings.NewReader(link))
		return &http.Response{StatusCode: w.code, Request: r, Header: w.header, ContentLength: int64(w.body.Len()), Body: io.NopCloser(strings.NewReader(w.body.String()))}
	}
	r := response(0, "GET", "", nil).Request
	for _, code := range []int{200, 304} {
		resp := target(r)
		if err := rewrite.Response(resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		if tag := resp.Header.Get("Etag"); resp.StatusCode != code || tag != `W/"v1"` {
			t.Errorf("got %d, %s, want %d", resp.StatusCode, tag, code)
		}
		r.Header.Set("If-None-Match", resp.Header.Get("Etag"))
	}
	r.Header = http.Header{"If-Range": {`W/"v1"`}, "Range": {"bytes=3-"}}
	if resp := target(r); resp.StatusCode != 200 {
		t.Errorf("a part of the target's bytes would be joined with ours: %d", resp.StatusCode)
	}
}
