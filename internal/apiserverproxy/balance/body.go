package balance

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// errBodyRead says that a body cannot be sent again.
var errBodyRead = errors.New("the connection broke, and the request cannot be sent again since its body was read already")

// body is a request's body, over all tries. Transports close what they are given, even if they could not send it; the body
// itself is closed after the last try only.
type body struct {
	src io.ReadCloser

	mu     sync.Mutex // guards the fields below
	lent   *handle    // what may read
	read   bool       // somebody has
	closed bool       // the handle is
	over   bool       // no try will follow
	err    error      // of a read
}

// newBody returns the body of a request; nil: it has none.
func newBody(r *http.Request) *body {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	return &body{src: r.Body}
}

// handle is a body for one try.
type handle struct{ b *body }

func (b *body) handle() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent, b.closed = &handle{b}, false
	return b.lent
}

// again returns a body that has not been read yet for another connection. net/http asks for it (Request.GetBody).
func (b *body) again() (io.ReadCloser, error) {
	if !b.fresh() {
		return nil, errBodyRead
	}
	return b.handle(), nil
}

// fresh tells whether the body can be sent from its begin.
func (b *body) fresh() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.read
}

// broken tells whether the body itself could not be read.
func (b *body) broken() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}

// last says that no try follows.
func (b *body) last() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.over = true
	closed := b.closed
	b.mu.Unlock()
	if closed {
		b.src.Close()
	}
}

// Read implements io.Reader.
func (h *handle) Read(p []byte) (int, error) {
	b := h.b
	b.mu.Lock()
	if b.lent != h || b.closed {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.read = true
	b.mu.Unlock()
	n, err := b.src.Read(p)
	if err != nil && err != io.EOF {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// Close implements io.Closer.
func (h *handle) Close() error {
	b := h.b
	b.mu.Lock()
	if b.lent != h || b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	over := b.over
	b.mu.Unlock()
	if over {
		return b.src.Close()
	}
	return nil
}

// hold has an answer's body end the try.
func (t *try) hold(resp *http.Response) {
	if !t.at.leased && t.cancel == nil {
		return
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	switch {
	case ok && resp.StatusCode == http.StatusSwitchingProtocols:
		resp.Body = &heldStream{stream, held{t: t}}
	case resp.Body == nil || resp.Body == http.NoBody:
		t.at.done()
		t.end()
	default:
		t.answer.ReadCloser, t.answer.t = resp.Body, t
		resp.Body = &t.answer
	}
}

// held ends a try once.
type held struct {
	t    *try
	once sync.Once
}

func (h *held) end() {
	h.once.Do(func() {
		h.t.at.done()
		h.t.end()
	})
}

// heldBody is an answer's body.
type heldBody struct {
	io.ReadCloser
	held
}

// Close implements io.Closer.
func (b *heldBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// heldStream is the body of an answer of code 101.
type heldStream struct {
	io.ReadWriteCloser
	held
}

// Close implements io.Closer.
func (s *heldStream) Close() error {
	defer s.end()
	return s.ReadWriteCloser.Close()
}

// CloseWrite ends the direction of the writes if the stream can; else it fails with errors.ErrUnsupported.
func (s *heldStream) CloseWrite() error {
	if half, ok := s.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
