package https

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/httpproxy/resend"
	"varco.dev/internal/httpproxy/vouch"
)

// flight is a request on its way to one backend.
type flight struct {
	all    *flights
	to     Attempt
	kind   vouch.Kind
	began  time.Time
	req    *http.Request
	url    url.URL
	body   *resend.Body
	from   context.Context // the client's
	cancel context.CancelCauseFunc
	trace  httptrace.ClientTrace
	outer  *httptrace.ClientTrace // who else wants to know; nil: nobody
	once   sync.Once

	watch atomic.Pointer[watchBody] // once the header has come
	lost  atomic.Bool               // it is to end, whatever the backend does

	mu        sync.Mutex // guards the fields below; hooks are called by other goroutines
	connected bool
	reused    bool  // the connection has served before
	conn      *conn // nil: unknown
	shared    bool  // by others: of HTTP/2
	base      int64 // what was written to it before
	before    bool  // something was written to another one
}

// fly makes the request for a backend.
func (x *exchange) fly(r *http.Request, to Attempt, b *resend.Body) *flight {
	f := &flight{all: x.flights, to: to, kind: x.kind, began: time.Now(), url: *r.URL, body: b, from: r.Context()}
	ctx, cancel := context.WithCancelCause(f.from)
	f.cancel = cancel
	f.url.Host = to.Backend.String()
	f.req = r.WithContext(f.traced(ctx))
	f.req.URL = &f.url
	if b != nil {
		f.req.Body, f.req.GetBody = b.Give(), b.Again
	}
	f.all.add(f)
	return f
}

// roundTrip sends the request. The answer's body ends the flight.
func (f *flight) roundTrip(lane http.RoundTripper) (*http.Response, error) {
	resp, err := lane.RoundTrip(f.req)
	if err != nil {
		return nil, err
	}
	f.to.Report(Answered)
	f.hold(resp)
	return resp, nil
}

// end lets go of all. It may be repeated.
func (f *flight) end() {
	f.once.Do(func() {
		f.all.remove(f)
		f.cancel(nil)
		f.to.Report(Ended)
	})
}

// judge says whether a failed request may be sent again, and reports why it failed if the backend is to blame.
func (f *flight) judge(err error) way {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.from.Err() != nil || f.body.Broken() {
		return no // the client has gone, or does not send what it promised
	}
	sent := f.sent()
	lost := f.lost.Load()
	switch {
	case lost: // known already
	case !f.connected && isOwn(err):
	case !f.connected:
		f.to.Report(blame(err))
	case !f.reused || sent:
		f.to.Report(Broken)
	}
	switch {
	case !f.body.Fresh():
		return no
	case !sent:
		return unsent
	case f.mayRepeat():
		return idempotent
	}
	return no
}

// sent tells whether something of the request may have been sent. The caller holds mu.
func (f *flight) sent() bool {
	return f.before || f.connected && (f.shared || f.conn == nil || f.conn.written.Load() > f.base)
}

// mayRepeat tells whether a request may be sent again although it may have been carried out.
func (f *flight) mayRepeat() bool { return isSafe(f.req) && f.kind != vouch.Upgrading }

// blame returns why there is no connection.
func blame(err error) Event {
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.As(err, &unknown), errors.As(err, &wrongName), errors.As(err, &invalid), errors.As(err, &verification):
		return Untrusted
	case isTimeout(err) && !(errors.As(err, &op) && op.Op == "dial"):
		return Silent // it was connected
	}
	return Unreachable
}

// isOwn tells whether what this machine has run out of is why there is no connection, for which no backend is to blame.
func isOwn(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL}, func(own error) bool {
		return errors.Is(err, own)
	})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

// describe says what a client is told. Where its request has done nothing, or may be repeated, that is to come again (503 with
// Retry-After), which client-go does by itself; else it must see for itself.
func (f *flight) describe(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cause := context.Cause(f.req.Context()); errors.Is(cause, errLost) {
		err = cause
	}
	err = httpproxy.Unanswered("the API server "+f.url.Host, err)
	if f.sent() && !f.mayRepeat() {
		return err
	}
	return httpproxy.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, err.Error())
}

// hold has an answer's body end the flight.
func (f *flight) hold(resp *http.Response) {
	stream, ok := resp.Body.(io.ReadWriteCloser)
	switch {
	case ok && resp.StatusCode == http.StatusSwitchingProtocols:
		resp.Body = &heldStream{stream, f}
	case resp.Body == nil || resp.Body == http.NoBody:
		f.end()
	case f.kind == vouch.Watching && resp.ContentLength < 0: // its end is not announced
		b := &watchBody{ReadCloser: resp.Body, f: f, events: events{form: formOf(resp.Header)}}
		resp.Body = b
		f.watch.Store(b)
	default:
		resp.Body = &heldBody{resp.Body, f}
	}
}

// heldBody is an answer's body.
type heldBody struct {
	io.ReadCloser
	f *flight
}

// Close implements io.Closer.
func (b *heldBody) Close() error {
	defer b.f.end()
	return b.ReadCloser.Close()
}

// heldStream is the body of an answer of code 101.
type heldStream struct {
	io.ReadWriteCloser
	f *flight
}

// Close implements io.Closer.
func (s *heldStream) Close() error {
	defer s.f.end()
	return s.ReadWriteCloser.Close()
}

// CloseWrite ends the direction of the writes if the stream can; else it fails with errors.ErrUnsupported.
func (s *heldStream) CloseWrite() error {
	if half, ok := s.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
