package rewrite_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// encoder is what all of the libraries' encoders are.
type encoder interface {
	io.WriteCloser
	Flush() error
}

// plain encodes nothing.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }
func (plain) Flush() error { return nil }

// testCoding is a content coding, by the implementations that clients and targets have.
type testCoding struct {
	name   string // of the test
	header string
	encode func(io.Writer) encoder
	reader func(io.Reader) (io.Reader, error)
}

func codings() []testCoding {
	return []testCoding{
		{"identity", "", func(w io.Writer) encoder { return plain{w} }, func(r io.Reader) (io.Reader, error) { return r, nil }},
		{"gzip", "gzip", func(w io.Writer) encoder { return gzip.NewWriter(w) }, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"x-gzip", "X-GZip", func(w io.Writer) encoder { return gzip.NewWriter(w) }, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"deflate", "deflate", func(w io.Writer) encoder { return zlib.NewWriter(w) }, func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }},
		{"deflate, raw", "deflate", func(w io.Writer) encoder { z, _ := flate.NewWriter(w, 6); return z },
			func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil }},
		{"br", "br", func(w io.Writer) encoder {
			return brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: 5, LGWin: 24})
		},
			func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil }},
		{"zstd", "zstd", func(w io.Writer) encoder { z, _ := zstd.NewWriter(w, zstd.WithWindowSize(8<<20)); return z },
			func(r io.Reader) (io.Reader, error) {
				return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
			}},
	}
}

// pack returns a text encoded.
func (c testCoding) pack(t testing.TB, text []byte) []byte {
	var b bytes.Buffer
	e := c.encode(&b)
	if _, err := e.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// decode returns a text decoded, all of it.
func (c testCoding) decode(t testing.TB, r io.Reader) []byte {
	d, err := c.reader(r)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	out, err := io.ReadAll(d)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	return out
}

// packed is an answer with an encoded page.
func packed(t testing.TB, c testCoding, text []byte) *http.Response {
	return encoded(c, io.NopCloser(bytes.NewReader(c.pack(t, text))))
}

func encoded(c testCoding, body io.ReadCloser) *http.Response {
	h := http.Header{"Content-Type": {"text/html"}}
	if c.header != "" {
		h.Set("Content-Encoding", c.header)
	}
	return &http.Response{StatusCode: 200, Header: h, ContentLength: -1, Body: body}
}
