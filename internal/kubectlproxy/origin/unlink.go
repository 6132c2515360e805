package origin

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
)

// unlink takes a prefix off the links of an HTML page while it passes. The API server writes the attributes that it has
// changed as name="value". Pages in encodings other than gzip and none have not been changed by it, but for deflate,
// which nobody sends.
func unlink(resp *http.Response, prefix string) {
	if resp.Request != nil && resp.Request.Method == http.MethodHead || resp.Body == nil || resp.Body == http.NoBody {
		return
	}
	body := io.Reader(resp.Body)
	switch resp.Header.Get("Content-Encoding") {
	case "":
	case "gzip":
		body = &lazyGzip{src: resp.Body}
		resp.Header.Del("Content-Encoding")
	default:
		return
	}
	resp.Body = &replacer{src: body, close: resp.Body, old: []byte(`="` + prefix + `/`), new: []byte(`="/`)}
	resp.ContentLength = -1
	resp.Header.Del("Content-Length")
}

// lazyGzip reads the header of gzip with the first byte of the page, not before the answer's header was passed on.
type lazyGzip struct {
	src io.Reader
	gz  *gzip.Reader
}

// Read implements io.Reader.
func (l *lazyGzip) Read(p []byte) (int, error) {
	if l.gz == nil {
		gz, err := gzip.NewReader(l.src)
		if err != nil {
			return 0, err
		}
		l.gz = gz
	}
	return l.gz.Read(p)
}

// replaceBytes is how much of a page is looked at together.
const replaceBytes = 16 << 10

// replacer puts new in the place of old, which is longer, in what it reads. What may be the beginning of old waits for
// what follows; all else is handed on at once.
type replacer struct {
	src      io.Reader
	close    io.Closer
	old, new []byte
	raw      []byte // read, not looked at
	ready    []byte // to be handed out
	err      error
}

// Read implements io.Reader.
func (r *replacer) Read(p []byte) (int, error) {
	for len(r.ready) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *replacer) Close() error { return r.close.Close() }

func (r *replacer) fill() {
	chunk := make([]byte, replaceBytes)
	n, err := r.src.Read(chunk)
	r.raw, r.err = append(r.raw, chunk[:n]...), err
	keep := 0
	if err == nil {
		keep = beginning(r.raw, r.old)
	}
	whole := r.raw[:len(r.raw)-keep]
	r.ready = bytes.ReplaceAll(whole, r.old, r.new)
	r.raw = bytes.Clone(r.raw[len(whole):])
}

// beginning is how many bytes at the end of text could be the first of word.
func beginning(text, word []byte) int {
	for n := min(len(text), len(word)-1); n > 0; n-- {
		if bytes.HasSuffix(text, word[:n]) {
			return n
		}
	}
	return 0
}
