package httpproxy

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
)

// mayDecompress tells whether the proxy asks for gzip on its own account, as http.Transport would: the client has said
// nothing about encodings, and no part of the answer is asked for by position.
func (x *exchange) mayDecompress() bool {
	if !x.t.Decompress || x.upgrading || x.r.Method == http.MethodHead {
		return false
	}
	_, encoding := x.r.Header["Accept-Encoding"]
	_, part := x.r.Header["Range"]
	return !encoding && !part
}

// decompress unpacks an answer if it is packed. Its ETag stays: it names the same content to the target, which will be asked
// for gzip again when the client comes back with it.
func decompress(resp *http.Response) {
	if resp.ContentLength == 0 || resp.Body == http.NoBody || !strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		return
	}
	delete(resp.Header, "Content-Encoding")
	delete(resp.Header, "Content-Length")
	resp.ContentLength = -1
	resp.Body = &unpacked{ReadCloser: resp.Body}
}

// unpacked is a gzipped body as it was before. It begins to unpack when it is read: the answer's header need not wait.
type unpacked struct {
	io.ReadCloser
	zip *gzip.Reader
	err error // of the beginning
}

// Read implements io.Reader.
func (u *unpacked) Read(p []byte) (int, error) {
	if u.zip == nil && u.err == nil {
		u.zip, u.err = gzip.NewReader(u.ReadCloser)
	}
	if u.err != nil {
		return 0, u.err
	}
	return u.zip.Read(p)
}
