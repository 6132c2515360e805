package resend

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// errBodyRead says that a body cannot be sent again.
var errBodyRead = errors.New("the connection broke, and the request cannot be sent again since its body was read already")

// Body is a request's body, over all tries. Transports close what they are given, even if they could not send it; the body
// itself is closed after the last try only. A nil Body is that of a request that has none. It is safe for concurrent use.
type Body struct {
	src io.ReadCloser

	mu     sync.Mutex // guards the fields below
	lent   *handle    // what may read
	read   bool       // somebody has
	closed bool       // the handle is
	over   bool       // no try will follow
	err    error      // of a read
}

// NewBody returns the body of a request; nil: it has none.
func NewBody(r *http.Request) *Body {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	return &Body{src: r.Body}
}

// handle is a body for one try. Those before can read no more.
type handle struct{ b *Body }

// Give returns the body for a try, and ends what was given before. Of a request that has a body only.
func (b *Body) Give() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lent, b.closed = &handle{b}, false
	return b.lent
}

// Again returns a body that has not been read yet for another connection. net/http asks for it (Request.GetBody).
func (b *Body) Again() (io.ReadCloser, error) {
	if !b.Fresh() {
		return nil, errBodyRead
	}
	return b.Give(), nil
}

// Fresh tells whether the body can be sent from its begin.
func (b *Body) Fresh() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.read
}

// Broken tells whether the body itself could not be read.
func (b *Body) Broken() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}

// Last says that no try follows: the body is closed once what was given last is. Who leaves it to somebody else to close the
// body does not call it.
func (b *Body) Last() {
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

// Close implements io.Closer. No read begins after it.
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
