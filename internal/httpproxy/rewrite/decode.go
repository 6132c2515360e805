package rewrite

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

const (
	// sourceBuffer is what is read of an encoded body at once.
	sourceBuffer = 16 << 10
	// maxZstdWindow is how far back a zstd page may refer: RFC 9659 forbids more for HTTP. deflate has 32 KiB, and brotli at
	// most 16 MiB (RFC 7932, 9.1; the decoder takes no larger ones), of which no more is allocated than the page is long.
	maxZstdWindow = 8 << 20
)

// errTrailing says that more came than the encoded page.
var errTrailing = errors.New("decoding a page: there is data behind its end")

// codedFeed is a page with an encoding. Its decoder runs as a coroutine: it reads when it likes, and before each read, which
// may wait, it is put aside, so that what it has decoded can go out.
type codedFeed struct {
	body   io.ReadCloser
	coding coding

	mu     sync.Mutex // guards the fields below, and the decoder
	resume func() ([]byte, bool)
	stop   func()
	closed bool
	err    error // the decoder's
}

func newCodedFeed(body io.ReadCloser, c coding) *codedFeed {
	f := &codedFeed{body: body, coding: c}
	f.resume, f.stop = iter.Pull(f.run)
	return f
}

// run decodes the page. It yields pieces, and nothing before it reads.
func (f *codedFeed) run(yield func([]byte) bool) {
	s := &decoding{body: f.body, yield: yield}
	f.err = f.decode(bufio.NewReaderSize(s, sourceBuffer), s)
}

// next implements feed.
func (f *codedFeed) next() ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, http.ErrBodyReadAfterClose
	}
	if piece, ok := f.resume(); ok {
		return piece, nil
	}
	if f.err == nil {
		f.err = io.EOF
	}
	return nil, f.err
}

// close implements feed.
func (f *codedFeed) close() error {
	err := f.body.Close() // has a read return that waits
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.stop()
	return err
}

// decoding is a decoder's way to its surroundings.
type decoding struct {
	body    io.Reader
	yield   func([]byte) bool
	stopped bool
}

// Read implements io.Reader: the body's bytes.
func (d *decoding) Read(p []byte) (int, error) {
	if !d.give(nil) {
		return 0, http.ErrBodyReadAfterClose
	}
	return readSome(d.body, p)
}

// Write implements io.Writer: the page's.
func (d *decoding) Write(p []byte) (int, error) {
	if len(p) > 0 && !d.give(p) {
		return 0, http.ErrBodyReadAfterClose
	}
	return len(p), nil
}

func (d *decoding) give(p []byte) bool {
	d.stopped = d.stopped || !d.yield(p)
	return !d.stopped
}

// decode writes the page to w. nil: it was complete.
func (f *codedFeed) decode(r *bufio.Reader, w io.Writer) error {
	if _, err := r.Peek(1); err == io.EOF {
		return nil // nothing at all is an empty page to all browsers
	} else if err != nil {
		return err
	}
	switch f.coding {
	case gzipped:
		z, err := gzip.NewReader(r)
		if err != nil {
			return broken(err)
		}
		return pour(w, z)
	case deflated, rawDeflated:
		return f.inflate(r, w)
	case brotlied:
		return pour(w, brotli.NewReader(r))
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = z.WriteTo(w)
	return broken(err)
}

// inflate decodes what is called deflate: by RFC 9110, 8.4.1.2, in the format of zlib; from many servers, without.
func (f *codedFeed) inflate(r *bufio.Reader, w io.Writer) error {
	var z io.Reader
	if head, _ := r.Peek(2); len(head) == 2 && head[0]&0x0F == 8 && head[0]>>4 <= 7 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		var err error
		if z, err = zlib.NewReader(r); err != nil {
			return broken(err)
		}
	} else {
		f.coding, z = rawDeflated, flate.NewReader(r)
	}
	if err := pour(w, z); err != nil {
		return err
	}
	switch _, err := r.Peek(1); err {
	case io.EOF:
		return nil
	case nil:
		return errTrailing
	default:
		return err
	}
}

// pour writes all that a decoder has.
func pour(w io.Writer, r io.Reader) error {
	buf := make([]byte, largeRead)
	for {
		n, err := readSome(r, buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return broken(err)
		}
	}
}

// broken is the error of a decoder. A page that ends too early has not ended, whatever a decoder calls that.
func broken(err error) error {
	switch err {
	case nil:
		return nil
	case io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("decoding a page: %w", err)
}
