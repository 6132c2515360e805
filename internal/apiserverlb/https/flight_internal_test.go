package https

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"varco.dev/internal/httpproxy/resend"
	"varco.dev/internal/httpproxy/vouch"
)

// TestJudge looks at what decides whether a request is sent again.
func TestJudge(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	fails := iotest.ErrReader(errors.New("the client sends no more"))
	for _, c := range []struct {
		name      string
		from      context.Context
		method    string
		body      io.Reader
		read      bool // of the body
		kind      vouch.Kind
		connected bool
		written   int64
		shared    bool
		want      way
	}{
		{name: "no connection", method: "POST", body: strings.NewReader("x"), want: unsent},
		{name: "nothing written", method: "POST", body: strings.NewReader("x"), connected: true, want: unsent},
		{name: "nothing written of a body that was read", method: "POST", body: strings.NewReader("x"), read: true, connected: true, want: no},
		{name: "a body that breaks", method: "POST", body: fails, read: true, want: no},
		{name: "the client has gone", from: gone, method: "GET", want: no},
		{name: "written", method: "POST", connected: true, written: 1, want: no},
		{name: "written, reads", method: "GET", connected: true, written: 1, want: idempotent},
		{name: "written, reads with a body", method: "GET", body: strings.NewReader("x"), connected: true, written: 1, want: no},
		{name: "written, changes", method: "DELETE", connected: true, written: 1, want: no},
		{name: "written, upgrades", method: "GET", kind: vouch.Upgrading, connected: true, written: 1, want: no},
		{name: "maybe written", method: "POST", connected: true, shared: true, want: no},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "/", c.body)
			if c.body == nil {
				r.Body = http.NoBody
			}
			f := &flight{from: t.Context(), req: r, body: resend.NewBody(r), kind: c.kind, connected: c.connected, conn: &conn{}, shared: c.shared, to: Attempt{Report: func(Event) {}}}
			if c.from != nil {
				f.from = c.from
			}
			f.conn.written.Store(c.written)
			if c.read {
				_, _ = io.ReadAll(f.body.Give())
			}
			if got := f.judge(io.EOF); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestBlame looks at what a backend is told to have done if there is no connection.
func TestBlame(t *testing.T) {
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, c := range []struct {
		name string
		err  error
		want []Event
	}{
		{"refused", dial(syscall.ECONNREFUSED), []Event{Refused}},
		{"no route", dial(syscall.EHOSTUNREACH), []Event{Unreachable}},
		{"no answer", dial(os.ErrDeadlineExceeded), []Event{Unreachable}},
		{"no handshake", os.ErrDeadlineExceeded, []Event{Silent}},
		{"no descriptor is left here", dial(syscall.EMFILE), nil},
		{"no port is left here", dial(syscall.EADDRNOTAVAIL), nil},
	} {
		var got []Event
		r := httptest.NewRequest("POST", "/", nil)
		f := &flight{from: t.Context(), req: r, to: Attempt{Report: func(e Event) { got = append(got, e) }}}
		if w := f.judge(c.err); w != unsent || !slices.Equal(got, c.want) {
			t.Errorf("%s: told %v, way %v", c.name, got, w)
		}
	}
}

// TestBytesCountWhileTheyAreWritten wants a request not to be taken for unsent while it is on its way into the kernel.
func TestBytesCountWhileTheyAreWritten(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := &conn{Conn: near, all: newFlights(nil)}
	written := make(chan struct{})
	go func() { defer close(written); c.Write([]byte("GET")) }()
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil { // it is within Write
		t.Fatal(err)
	}
	if n := c.written.Load(); n != 3 {
		t.Errorf("%d bytes count while they are written", n)
	}
	c.Close()
	<-written
	if n := c.written.Load(); n != 1 {
		t.Errorf("%d bytes count, one was written", n)
	}
}
