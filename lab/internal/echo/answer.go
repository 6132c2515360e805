package echo

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// answer is whatever the client asks for: a status, headers (each NAME:VALUE), a body, and how that is packed.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	q := queryOf(w, r)
	code, ok := q.number("status", http.StatusOK)
	if !ok {
		return
	}
	pause, ok := q.duration("pause", 0)
	if !ok {
		return
	}
	if code < 200 || code > 999 {
		http.Error(w, "status must be from 200 to 999", http.StatusBadRequest)
		return
	}
	for _, h := range q.Values["header"] {
		name, value, _ := strings.Cut(h, ":")
		w.Header().Add(name, value)
	}
	w.WriteHeader(int(code))
	for i, part := range q.Values["body"] {
		if i > 0 && !s.pause(w, r, pause) {
			return
		}
		if _, err := io.WriteString(w, part); err != nil {
			return
		}
	}
}

// pause sends what was written, and waits. It is false if there is no point in going on.
func (s *Server) pause(w http.ResponseWriter, r *http.Request, d time.Duration) bool {
	if http.NewResponseController(w).Flush() != nil {
		return false
	}
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
	case <-s.stopping:
	}
	return false
}

// pageText has links of the kinds that matter to who serves a page below another path than its own.
const pageText = `<!DOCTYPE html>
<html><head><title>page</title><link rel="stylesheet" href="/style.css"></head>
<body><a href="/absolute?x=1&amp;y=2">absolute</a> <a href="relative">relative</a> <a href="//elsewhere.test/x">other host</a>
<img src="/image.png" alt="/alt"><form action="/form"></form><a href="#here">here</a></body></html>
`

// page is an HTML page, of any length and packed as the client asks by the parameter encoding, with an ETag, and ranges
// of it.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	q := queryOf(w, r)
	n, ok := q.number("n", int64(len(pageText)))
	if !ok {
		return
	}
	if n > maxPage {
		http.Error(w, fmt.Sprintf("n must be at most %d", maxPage), http.StatusBadRequest)
		return
	}
	text := []byte(pageText)
	if rest := int(n) - len(text); rest > 0 {
		text = append(text, bytes.Repeat([]byte{' '}, rest)...)
	}
	encoding := q.Get("encoding")
	text, ok = pack(encoding, text)
	if !ok {
		http.Error(w, "encoding must be gzip, deflate, raw-deflate, br or zstd", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("ETag", `"page"`)
	if encoding != "" {
		w.Header().Set("Content-Encoding", strings.TrimPrefix(encoding, "raw-"))
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

// maxPage bounds a page, which is made in memory.
const maxPage = 64 << 20

// pack packs text by a content coding of RFC 9110, or by deflate without the frame that it has there, as some servers do.
func pack(encoding string, text []byte) ([]byte, bool) {
	var out bytes.Buffer
	var in io.WriteCloser
	switch encoding {
	case "":
		return text, true
	case "gzip":
		in = gzip.NewWriter(&out)
	case "deflate":
		in = zlib.NewWriter(&out)
	case "raw-deflate":
		in, _ = flate.NewWriter(&out, flate.DefaultCompression) // the level is a good one
	case "br":
		in = brotli.NewWriter(&out)
	case "zstd":
		in, _ = zstd.NewWriter(&out) // without options there is nothing that could be wrong
	default:
		return nil, false
	}
	_, _ = in.Write(text) // memory takes everything
	_ = in.Close()
	return out.Bytes(), true
}
