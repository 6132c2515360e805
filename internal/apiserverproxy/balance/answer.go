package balance

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

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
