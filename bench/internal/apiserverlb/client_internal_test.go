package apiserverlb

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"syscall"
	"testing"
)

// What client-go repeats by itself.
func TestAsksAgain(t *testing.T) {
	for _, c := range []struct {
		code  int
		later string
		want  bool
	}{
		{http.StatusTooManyRequests, "1", true}, {http.StatusServiceUnavailable, "1", true}, {http.StatusServiceUnavailable, "", false},
		{http.StatusForbidden, "1", false}, {http.StatusServiceUnavailable, "soon", false},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.later)
			w.WriteHeader(c.code)
		}))
		_, err := get(t.Context(), s.Client(), s.URL)
		if err == nil || asksAgain(err) != c.want {
			t.Errorf("%d, later %q: %v: want %t", c.code, c.later, err, c.want)
		}
		s.Close()
	}
	for err, want := range map[error]bool{
		&url.Error{Op: "Get", Err: io.EOF}: true, io.ErrUnexpectedEOF: true, fmt.Errorf("get: %w", syscall.ECONNRESET): true,
		context.DeadlineExceeded: false, syscall.ECONNREFUSED: false,
	} {
		if got := asksAgain(err); got != want {
			t.Errorf("%v: got %t", err, got)
		}
	}
}

// Servers tell who they are by a header, as their flag says.
func TestWhose(t *testing.T) {
	for i := range backendCount {
		value := identityFlag(i)[len("--strict-transport-security-directives="):]
		if got := whose(http.Header{identity: {value}}); got != i {
			t.Errorf("%s: got %d, want %d", value, got, i)
		}
	}
	if got := whose(http.Header{}); got != gone {
		t.Errorf("got %d of none", got)
	}
}

func TestNumbered(t *testing.T) {
	if got, want := numbered(backendNet, 7), netip.MustParseAddr("127.77.0.7"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
