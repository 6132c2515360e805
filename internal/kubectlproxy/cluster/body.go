package cluster

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// keptBody is how much of a request's body is kept while it is sent, so that it can be sent again. Most objects are
	// smaller, and etcd takes 1.5 MiB.
	keptBody = 256 << 10
	// firstBody is the memory that is taken at first; most objects are smaller than that too.
	firstBody = 16 << 10
	// freeBody is how long a transport may take to let go of a body after the answer came.
	freeBody = time.Second
)

// body is the body of a request that may be sent more than once. What is read of it is kept, up to keptBody.
type body struct {
	source io.ReadCloser

	mu       sync.Mutex
	data     []byte
	over     bool  // more was read than is kept
	end      error // why the source gives no more; nil: it may
	last     *sending
	released bool // nothing will be sent again
}

func newBody(source io.ReadCloser, length int64) *body {
	b := &body{source: source}
	if length > 0 {
		b.data = make([]byte, 0, min(length, firstBody))
	}
	return b
}

// request returns a copy of the request that sends the body from its beginning.
func (b *body) request(r *http.Request, header http.Header) *http.Request {
	out := r.WithContext(r.Context())
	out.Header, out.Body = header, b.send()
	// Transports ask for it when a connection turns out to be closed before anything was written.
	out.GetBody = func() (io.ReadCloser, error) {
		if !b.free(r.Context()) || !b.kept() {
			return nil, http.ErrBodyReadAfterClose
		}
		return b.send(), nil
	}
	return out
}

func (b *body) send() *sending {
	s := &sending{body: b, free: make(chan struct{})}
	b.mu.Lock()
	b.last = s
	b.mu.Unlock()
	return s
}

// kept says whether everything that was read so far can be sent again.
func (b *body) kept() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.over && !b.released && (b.end == nil || b.end == io.EOF)
}

// free waits until nobody reads the body, and says whether that is so and all of it can still be sent. A transport may
// read on after the answer has come; it closes the body when it is done with it (see http.RoundTripper).
func (b *body) free(ctx context.Context) bool {
	b.mu.Lock()
	s := b.last
	b.mu.Unlock()
	wait := time.NewTimer(freeBody)
	defer wait.Stop()
	select {
	case <-s.free:
		return b.kept()
	case <-wait.C:
	case <-ctx.Done():
	}
	return false
}

// release says that the body is not sent again: nothing more is kept, and closing it closes the source. What is being
// sent goes on: an answer may come before all of the request is sent.
func (b *body) release() {
	b.mu.Lock()
	closed := b.last.closed
	b.released = true
	if b.last.at >= len(b.data) {
		b.data = nil
	}
	b.mu.Unlock()
	if closed {
		b.source.Close()
	}
}

// keep takes what was read. b.mu is held.
func (b *body) keep(p []byte) {
	switch {
	case len(p) == 0 || b.over || b.released:
	case len(b.data)+len(p) > keptBody:
		b.over, b.data = true, nil
	default:
		b.data = append(b.data, p...)
	}
}

// sending is the body as one request sends it.
type sending struct {
	body    *body
	at      int  // how much of the kept data was read
	reading bool // a read of the source is under way
	closed  bool
	free    chan struct{} // closed as soon as it is closed and no read is under way
}

// Read implements io.Reader: first what is kept, then the source.
func (s *sending) Read(p []byte) (int, error) {
	b := s.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case s.closed:
		return 0, http.ErrBodyReadAfterClose
	case s.at < len(b.data):
		n := copy(p, b.data[s.at:])
		s.at += n
		return n, nil
	case b.end != nil:
		return 0, b.end
	}
	s.reading = true
	b.mu.Unlock()
	n, err := b.source.Read(p)
	b.mu.Lock()
	s.reading = false
	s.at += n
	b.keep(p[:n])
	b.end = err
	if s.closed {
		close(s.free)
	}
	return n, err
}

// Close implements io.Closer.
func (s *sending) Close() error {
	b := s.body
	b.mu.Lock()
	first, released := !s.closed, b.released
	s.closed = true
	if first && !s.reading {
		close(s.free)
	}
	b.mu.Unlock()
	if first && released {
		return b.source.Close()
	}
	return nil
}
