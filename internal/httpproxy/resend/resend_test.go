package resend_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/iotest"

	"varco.dev/internal/httpproxy/resend"
)

// TestBodyIsReadOnce wants a handle of before to read nothing that the next one would lack.
func TestBodyIsReadOnce(t *testing.T) {
	b := resend.NewBody(httptest.NewRequest("POST", "/", strings.NewReader("body")))
	first := b.Give()
	second, err := b.Again()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := first.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the first reads %d bytes", n)
	}
	if content, err := io.ReadAll(second); string(content) != "body" || err != nil {
		t.Errorf("the second reads %q %v", content, err)
	}
	if _, err := b.Again(); err == nil {
		t.Error("a third may read")
	}
	second.Close()
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("it reads after its end")
	}
}

// TestNoBody: a request without a body may be sent at any time.
func TestNoBody(t *testing.T) {
	for _, r := range []*http.Request{{}, {Body: http.NoBody}} {
		b := resend.NewBody(r)
		if b != nil || !b.Fresh() || b.Broken() {
			t.Errorf("got %v, fresh %t, broken %t", b, b.Fresh(), b.Broken())
		}
		b.Last()
	}
}

// TestBodyBreaks wants to hear of a body that its client does not send, and not of its end.
func TestBodyBreaks(t *testing.T) {
	for name, test := range map[string]struct {
		from   io.Reader
		broken bool
	}{
		"broken": {iotest.ErrReader(errors.New("gone")), true},
		"whole":  {strings.NewReader("body"), false},
	} {
		b := resend.NewBody(httptest.NewRequest("POST", "/", test.from))
		if !b.Fresh() || b.Broken() {
			t.Errorf("%s, at first: fresh %t, broken %t", name, b.Fresh(), b.Broken())
		}
		_, _ = io.ReadAll(b.Give())
		if b.Fresh() || b.Broken() != test.broken {
			t.Errorf("%s: fresh %t, broken %t", name, b.Fresh(), b.Broken())
		}
	}
}

// counted counts how often it is closed.
type counted struct {
	io.Reader
	closed int
}

func (c *counted) Close() error { c.closed++; return nil }

// TestBodyIsClosedOnce wants the body to be closed with the last try, in whichever order it is told that it is the last.
func TestBodyIsClosedOnce(t *testing.T) {
	for _, lastFirst := range []bool{false, true} {
		src := &counted{Reader: strings.NewReader("body")}
		b := resend.NewBody(&http.Request{Body: src})
		first := b.Give()
		first.Close()
		second := b.Give()
		first.Close()
		if src.closed > 0 {
			t.Fatal("closed before the last try")
		}
		if lastFirst {
			b.Last()
			second.Close()
		} else {
			second.Close()
			b.Last()
		}
		second.Close()
		if src.closed != 1 {
			t.Errorf("told first %t: closed %d times", lastFirst, src.closed)
		}
	}
}

// TestTraced wants a context to have its own trace, and all else of the one below.
func TestTraced(t *testing.T) {
	type key struct{}
	below := httptrace.WithClientTrace(context.WithValue(t.Context(), key{}, "value"), &httptrace.ClientTrace{})
	own := &httptrace.ClientTrace{}
	ctx := &resend.Traced{Context: below, Trace: own}
	if httptrace.ContextClientTrace(ctx) != own || ctx.Value(key{}) != "value" || ctx.Value("none") != nil {
		t.Errorf("got trace %p of %p, value %v", httptrace.ContextClientTrace(ctx), own, ctx.Value(key{}))
	}
}
