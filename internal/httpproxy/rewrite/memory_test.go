package rewrite_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"varco.dev/internal/httpproxy/rewrite"
)

// endless is a page: a text, another as often as it takes, and a third.
type endless struct {
	before, again, after string
	left                 int // of the page
	at                   int
	piece                []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if e.piece == nil {
		e.piece = []byte(strings.Repeat(e.again, 1+(64<<10)/len(e.again)))
	}
	if e.left <= 0 {
		if e.after == "" {
			return 0, io.EOF
		}
		n := copy(p, e.after)
		e.after = e.after[n:]
		return n, nil
	}
	if e.before != "" {
		n := copy(p, e.before)
		e.before = e.before[n:]
		return n, nil
	}
	n := copy(p[:min(len(p), e.left)], e.piece[e.at%len(e.again):])
	e.at, e.left = e.at+n, e.left-n
	return n, nil
}

func (e *endless) Close() error { return nil }

// giants are pages of some size that is mostly one thing.
func giants(size int) map[string]*endless {
	return map[string]*endless{
		"page":            {before: "<html><body>", again: `<p class="x">Some text, as pages have it, <a href="/link/to/it">with a link</a> in it.</p>` + "\n", left: size},
		"text":            {before: "<p>", again: "nothing but text ", after: "</p>", left: size},
		"tag":             {before: "<a ", again: `b="c" `, after: ` href="/x">`, left: size},
		"attribute":       {before: `<a title="`, again: "x", after: `" href="/x">`, left: size},
		"URL":             {before: `<a href="/`, again: "x", after: `" href="/x">`, left: size},
		"URL, unquoted":   {before: `<a href=/`, again: "x", after: ` href="/x">`, left: size},
		"name":            {before: `<a `, again: "x", after: ` href="/x">`, left: size},
		"meta":            {before: `<meta content="1;/x" a="`, again: "x", after: `" http-equiv=refresh>`, left: size},
		"comment":         {before: "<!--", again: "what a comment has to say, dashes - too - ", after: "-->", left: size},
		"doctype":         {before: "<!DOCTYPE ", again: "x", after: ">", left: size},
		"script":          {before: "<script>", again: "if (a < b) { c(); }\n", after: "</script>", left: size},
		"escaped script":  {before: "<script><!--", again: "if (a < b) { c(); }\n", after: "--></script>", left: size},
		"style":           {before: "<style>", again: "a { b: c }\n", after: "</style>", left: size},
		"attributes":      {before: "<a ", again: `href=/x `, after: `>`, left: size},
		"list of URLs":    {before: `<a ping="`, again: "/' ", after: `">`, left: 60 << 10},
		"srcset":          {before: `<img srcset="`, again: "/ ,", after: `">`, left: 60 << 10},
		"quotes in a URL": {before: `<a href="/`, again: `'`, after: `">`, left: 60 << 10},
		"links, and only": {again: "<a href=/>", left: size},
	}
}

// most reads a body to its end, and returns its length and the most heap that was in use meanwhile.
func most(t testing.TB, body io.Reader) (length int64, heap uint64) {
	buf := make([]byte, 8<<10)
	var stats runtime.MemStats
	for next := int64(0); ; {
		n, err := body.Read(buf)
		length += int64(n)
		if length >= next || err != nil {
			runtime.GC()
			runtime.ReadMemStats(&stats)
			heap, next = max(heap, stats.HeapAlloc), length+8<<20
		}
		if err == io.EOF {
			return length, heap
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// longest is about as long as a prefix of Kubernetes gets.
func longest() string {
	return "/api/v1/namespaces/" + strings.Repeat("n", 63) + "/services/https:" + strings.Repeat("s", 63) + ":65535/proxy"
}

// TestMemoryOfGiants is that no page takes more than 1 MiB, whatever it is made of.
func TestMemoryOfGiants(t *testing.T) {
	for name, page := range giants(4 << 20) {
		t.Run(name, func(t *testing.T) {
			switch name {
			case "text", "attribute":
				page.left = 200 << 20
			case "page", "comment", "script":
				page.left = 32 << 20 // as good, and they take their time
			}
			size := page.left
			_, _ = page.Read(nil) // makes its piece
			before := heap()
			resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/html"}}, ContentLength: -1, Body: page}
			if err := rewrite.Response(resp, rewrite.Page{Prefix: longest()}); err != nil {
				t.Fatal(err)
			}
			length, after := most(t, resp.Body)
			if length < int64(size) {
				t.Errorf("%d bytes have come out, want at least %d", length, size)
			}
			if extra := int64(after) - int64(before); extra > 1<<20 {
				t.Errorf("the heap has grown by %d KiB, which is more than 1 MiB", extra>>10)
			} else {
				t.Logf("the heap has grown by %d KiB", extra>>10)
			}
		})
	}
}

// limits are how much an encoded page may take: what is decoded and what is encoded have windows, the first of which is the
// target's choice. Those here are the largest.
func limits() map[string]int64 {
	return map[string]int64{"": 64 << 10, "gzip": 1 << 20, "X-GZip": 1 << 20, "deflate": 1 << 20, "br": 18 << 20, "zstd": 11 << 20}
}

// TestMemoryOfCodings is what a large page takes that is encoded.
func TestMemoryOfCodings(t *testing.T) {
	var stats strings.Builder
	for _, c := range codings() {
		limit := limits()[c.header]
		size := int(limit) + 6<<20 // a page that was held would be noticed
		var raw bytes.Buffer
		e := c.encode(&raw)
		if _, err := io.Copy(e, giants(size)["text"]); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = nil
		source := bytes.NewReader(raw.Bytes())
		before := heap()
		resp := encoded(c, io.NopCloser(source))
		if err := rewrite.Response(resp, rewrite.Page{Prefix: node}); err != nil {
			t.Fatal(err)
		}
		_, after := most(t, resp.Body)
		extra := int64(after) - int64(before)
		fmt.Fprintf(&stats, "%s %d KiB, ", c.name, extra>>10)
		if extra > limit+64<<10 {
			t.Errorf("%s: the heap has grown by %d KiB, want at most %d", c.name, extra>>10, limit>>10)
		}
		runtime.KeepAlive(source)
	}
	t.Log(stats.String())
}

// TestMemoryOfOpenPages is what a page takes that is not read on.
func TestMemoryOfOpenPages(t *testing.T) {
	var stats strings.Builder
	for _, c := range codings() {
		const count, size = 10, 300 << 10
		raw := c.pack(t, bytes.Repeat([]byte(`<p>text <a href="/x">text</a></p>`), size/33))
		raw = raw[:len(raw)-1] // so that it does not end
		before := heap()
		bodies := make([]*http.Response, count)
		buf := make([]byte, 8<<10)
		for i := range bodies {
			bodies[i] = encoded(c, io.NopCloser(bytes.NewReader(raw)))
			if err := rewrite.Response(bodies[i], rewrite.Page{Prefix: node}); err != nil {
				t.Fatal(err)
			}
			if _, err := bodies[i].Body.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		each := (int64(heap()) - int64(before)) / count
		fmt.Fprintf(&stats, "%s %d KiB, ", c.name, each>>10)
		if limit := limits()[c.header]; each > limit {
			t.Errorf("%s: %d KiB each, want at most %d", c.name, each>>10, limit>>10)
		}
		for _, r := range bodies {
			if err := r.Body.Close(); err != nil {
				t.Error(err)
			}
		}
		bodies = nil
		if left := int64(heap()) - int64(before); left > 1<<20 {
			t.Errorf("%s: %d KiB are left when all are closed and forgotten", c.name, left>>10)
		}
	}
	t.Log(stats.String())
}
