package rewrite_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"varco.dev/internal/httpproxy/rewrite"
)

// BenchmarkHTML reads pages of 8 MiB that are mostly one thing.
func BenchmarkHTML(b *testing.B) {
	const size = 8 << 20
	buf := make([]byte, 64<<10)
	for name := range giants(size) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/html"}}, ContentLength: -1, Body: giants(size)[name]}
				if err := rewrite.Response(resp, rewrite.Page{Prefix: node}); err != nil {
					b.Fatal(err)
				}
				drain(b, resp.Body, buf)
			}
		})
	}
}

func drain(b *testing.B, r io.Reader, buf []byte) {
	for {
		if _, err := r.Read(buf); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCodings reads an encoded page of 4 MiB.
func BenchmarkCodings(b *testing.B) {
	buf := make([]byte, 64<<10)
	for _, c := range codings() {
		raw := new(bytes.Buffer)
		e := c.encode(raw)
		if _, err := io.Copy(e, giants(4 << 20)["page"]); err != nil {
			b.Fatal(err)
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(4 << 20)
			b.ReportAllocs()
			for b.Loop() {
				resp := encoded(c, io.NopCloser(bytes.NewReader(raw.Bytes())))
				if err := rewrite.Response(resp, rewrite.Page{Prefix: node}); err != nil {
					b.Fatal(err)
				}
				drain(b, resp.Body, buf)
			}
		})
	}
}

// BenchmarkSmall is a small page and a small answer that is none, as Kubernetes does them and as this package does.
func BenchmarkSmall(b *testing.B) {
	buf := make([]byte, 8<<10)
	for _, contentType := range []string{"text/html", "text/plain"} {
		q := question{source: "http://10.1.1.1/", requestHost: "api", prefix: node, contentType: contentType, body: `<html><a href="/x">x</a></html>`}
		b.Run(contentType, func(b *testing.B) {
			b.ReportAllocs()
			r := q.request(b)
			for b.Loop() {
				resp := q.answer(r)
				if err := rewrite.Response(resp, rewrite.Page{Prefix: node}); err != nil {
					b.Fatal(err)
				}
				drain(b, resp.Body, buf)
			}
		})
		b.Run(contentType+", original", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q.original(b)
			}
		})
	}
}
