package httpproxy_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"varco.dev/internal/httpproxy"
)

// closing is a body as net/http's server has it: once it has ended, and the answer has begun, reading it is an error.
type closing struct {
	io.Reader
	ended bool
}

func (c *closing) Read(p []byte) (int, error) {
	if c.ended {
		return 0, errors.New("read on closed body")
	}
	n, err := c.Reader.Read(p)
	c.ended = err == io.EOF
	return n, err
}

func (c *closing) Close() error { return nil }

// twice is a RoundTripper that asks a body that has ended once more, as the writer of chunked bodies may.
type twice struct{ got string }

func (t *twice) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	t.got = string(b)
	if n, err := r.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return nil, errors.New("a body that has ended does not say so again")
	}
	return &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody}, nil
}

func TestEndedBodyIsNotAskedAgain(t *testing.T) {
	for _, size := range []int64{-1, 5} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Body, r.ContentLength = &closing{Reader: strings.NewReader("hello")}, size
		w, to := httptest.NewRecorder(), &twice{}
		p := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
		p.Serve(w, r, httpproxy.Target{Scheme: "http", Host: "a", RoundTripper: to})
		if w.Code != http.StatusNoContent || to.got != "hello" {
			t.Errorf("announced size %d: got %d, body %q, %s", size, w.Code, to.got, w.Body)
		}
	}
}
