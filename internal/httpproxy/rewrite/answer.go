package rewrite

import (
	"net/http"
	"strings"
)

// page has an answer's HTML rewritten, if it has some.
func (m *mover) page(resp *http.Response) {
	if resp.StatusCode == http.StatusNotModified {
		m.notModified(resp)
		return
	}
	coding, ok := m.rewritable(resp)
	if !ok {
		return
	}
	m.changed(resp)
	resp.ContentLength = -1
	if isHead(resp) || resp.Body == nil || resp.Body == http.NoBody {
		return // the header is what GET's would be
	}
	resp.Body = newBody(resp, m, coding)
}

// rewritable tells whether an answer is HTML that can be read, all of it, and how it is encoded. Those that are not are left
// alone.
func (m *mover) rewritable(resp *http.Response) (coding, bool) {
	h := resp.Header
	switch code := resp.StatusCode; {
	case code < 200, code == http.StatusNoContent, code == http.StatusPartialContent:
		return 0, false
	case len(h["Content-Range"]) > 0, !isHTML(h.Get("Content-Type")):
		return 0, false
	case resp.ContentLength == 0 && !isHead(resp):
		return 0, false
	}
	return codingOf(strings.Join(h["Content-Encoding"], ","))
}

func isHead(resp *http.Response) bool {
	return resp.Request != nil && resp.Request.Method == http.MethodHead
}

// isHTML tells whether a media type is HTML in a character set in which ASCII is what it is: UTF-8, all of ISO 8859 and
// Windows', and the Asian ones with lead bytes above 0x7F, whose second bytes are never < > " or '. In those of ISO 2022, and in
// UTF-16 and UTF-32, bytes that look like tags may be text.
func isHTML(mediaType string) bool {
	t, parameters, _ := strings.Cut(mediaType, ";")
	if !strings.EqualFold(strings.Trim(t, " \t"), "text/html") {
		return false
	}
	p := strings.ToLower(parameters)
	i := strings.Index(p, "charset=")
	if i < 0 {
		return true
	}
	charset := strings.TrimLeft(p[i+len("charset="):], " \t\"'")
	for _, wide := range []string{"utf-16", "utf16", "utf-32", "utf32", "utf-7", "ucs-2", "ucs-4", "unicode", "csunicode", "csucs4",
		"iso-10646", "iso-2022", "csiso2022", "hz-gb"} {
		if strings.HasPrefix(charset, wide) {
			return false
		}
	}
	return true
}

// changed has the header say of a body that is going to be another what is still true.
func (m *mover) changed(resp *http.Response) {
	h := resp.Header
	delete(h, "Content-Length")
	for _, name := range digests() {
		delete(h, name)
		delete(resp.Trailer, name)
	}
	// Ranges of the target's bytes would be joined with ours.
	delete(h, "Accept-Ranges")
	weaken(h)
}

// digests are the fields that hold sums of a body (RFC 9530, and RFC 3230 and 1864 before it).
func digests() []string {
	return []string{"Content-Digest", "Repr-Digest", "Digest", "Content-Md5"}
}

// weaken makes a strong ETag a weak one (RFC 9110, 8.8.3): the body means the same, but its bytes are others. Coming back in
// If-None-Match it still matches at the target, for that comparison is the weak one (13.1.2); in If-Range and If-Match it does
// not, and must not.
func weaken(h http.Header) {
	tag := h.Get("Etag")
	switch {
	case tag == "" || strings.HasPrefix(tag, "W/"):
	case len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"':
		h["Etag"] = []string{"W/" + tag}
	default:
		delete(h, "Etag") // not one, and what caches make of it is theirs
	}
}

// notModified has a 304 name the ETag that its 200 had. It has no media type to tell whether that was changed; but a client that
// asked with the weak form of a strong one has it from here. With the strong one, its cache would not find what it has
// (RFC 9111, 4.3.4).
func (m *mover) notModified(resp *http.Response) {
	tag := resp.Header.Get("Etag")
	if resp.Request == nil || !strings.HasPrefix(tag, `"`) {
		return
	}
	for _, line := range resp.Request.Header["If-None-Match"] {
		if strings.Contains(line, "W/"+tag) {
			weaken(resp.Header)
			return
		}
	}
}

// coding is a content coding (RFC 9110, 8.4.1) that can be undone and done again.
type coding uint8

const (
	identity coding = iota
	gzipped
	deflated    // in the format of zlib
	rawDeflated // without; servers call it deflate as well
	brotlied
	zstandard
)

// codingOf returns the coding that a Content-Encoding names. false: it is unknown, or there are several.
func codingOf(name string) (coding, bool) {
	switch strings.ToLower(strings.Trim(name, " \t")) {
	case "", "identity":
		return identity, true
	case "gzip", "x-gzip":
		return gzipped, true
	case "deflate":
		return deflated, true
	case "br":
		return brotlied, true
	case "zstd":
		return zstandard, true
	}
	return 0, false
}
