package rewrite

import (
	"io"
	"net/http"
)

const (
	// smallRead is what is read of a body first, and largeRead what is read once that was filled.
	smallRead = 4 << 10
	largeRead = 32 << 10
	// maxIdleReads is how often in a row a source may return nothing and no error.
	maxIdleReads = 100
)

// feed is where a page comes from, without its encoding.
type feed interface {
	// next returns a piece of the page, which is the caller's until the next call. Nothing and no error means that the next
	// call may wait for the target. io.EOF, with the last piece or after it, means that the page is complete.
	next() ([]byte, error)
	// close lets go of all; next fails from then on. It may be called while next waits, and has it return.
	close() error
}

// encoder encodes a page. What it was given goes out with Flush at the latest; Close ends the page.
type encoder interface {
	io.WriteCloser
	Flush() error
}

// body is a page that is rewritten while it is read. A read returns what there is, and waits for no more than the rest of an
// attribute's value.
type body struct {
	feed    feed
	scan    scanner
	left    []byte // has come, but is not scanned
	err     error  // of feed
	encoder func(io.Writer) encoder
	enc     encoder
	out     sink
	off     int // of out, which has been read
	resp    *http.Response
}

// sink collects what is written.
type sink []byte

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// newBody returns an answer's body, moved.
func newBody(resp *http.Response, m *mover, c coding) io.ReadCloser {
	b := &body{scan: scanner{edit: m.value}, resp: resp}
	if c == identity {
		b.feed = &plainFeed{body: resp.Body, size: resp.ContentLength}
		return b
	}
	f := newCodedFeed(resp.Body, c)
	b.feed = f
	b.encoder = f.encoder
	return b
}

// Close implements io.Closer.
func (b *body) Close() error { return b.feed.close() }

// Transformed tells whoever wants to read more, because more is at hand where the answer comes from, that it may be too little
// for this reader to return anything of it.
func (b *body) Transformed() {}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for b.off == len(b.out) && len(p) > 0 {
		if b.err != nil && len(b.left) == 0 {
			return 0, b.err
		}
		b.advance()
	}
	n := copy(p, b.out[b.off:])
	b.off += n
	return n, nil
}

// advance takes the next piece of the page on its way, if there is one.
func (b *body) advance() {
	if len(b.left) == 0 {
		b.left, b.err = b.feed.next()
	}
	waits := len(b.left) == 0
	b.scan.out = b.scan.out[:0]
	b.left = b.left[b.scan.write(b.left):]
	complete := b.err == io.EOF && len(b.left) == 0
	if complete {
		b.scan.finish()
		for _, name := range digests() {
			delete(b.resp.Trailer, name) // they were about the target's body
		}
	}
	if err := b.encode(waits, complete); err != nil {
		b.left, b.err = nil, err
	}
}

// encode passes on what has been scanned.
func (b *body) encode(waits, complete bool) error {
	if b.encoder == nil {
		b.out, b.off = b.scan.out, 0
		return nil
	}
	b.out, b.off = b.out[:0], 0
	if b.enc == nil && (complete || len(b.scan.out) > 0) {
		b.enc = b.encoder(&b.out)
	}
	if len(b.scan.out) > 0 {
		if _, err := b.enc.Write(b.scan.out); err != nil {
			return err
		}
	}
	switch {
	case complete:
		return b.enc.Close()
	case waits && b.enc != nil:
		return b.enc.Flush()
	}
	return nil
}

// plainFeed is a page without encoding.
type plainFeed struct {
	body io.ReadCloser
	size int64 // of all of it; -1: unknown
	buf  []byte
	full bool // the last read has filled buf
}

func (f *plainFeed) close() error { return f.body.Close() }

// next implements feed. It does not say that it is going to wait: nothing is held back that would have to go before.
func (f *plainFeed) next() ([]byte, error) {
	switch {
	case f.buf == nil && f.size > smallRead:
		f.buf = make([]byte, min(f.size+1, largeRead))
	case f.buf == nil:
		f.buf = make([]byte, smallRead)
	case f.full && len(f.buf) < largeRead:
		f.buf = make([]byte, largeRead)
	}
	n, err := readSome(f.body, f.buf)
	f.full = n == len(f.buf)
	return f.buf[:n], err
}

// readSome reads at least one byte, or fails.
func readSome(r io.Reader, p []byte) (int, error) {
	for range maxIdleReads {
		if n, err := r.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}
