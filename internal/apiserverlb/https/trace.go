package https

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http/httptrace"

	"varco.dev/internal/httpproxy/resend"
)

// traced has the flight told of its connections.
func (f *flight) traced(ctx context.Context) context.Context {
	f.outer = httptrace.ContextClientTrace(ctx)
	if f.outer != nil {
		f.trace = *f.outer
	}
	f.trace.GotConn = f.gotConn
	if f.outer == nil {
		return httptrace.WithClientTrace(ctx, &f.trace)
	}
	return &resend.Traced{Context: ctx, Trace: &f.trace}
}

// errTwice says that a request may have been carried out.
var errTwice = errors.New("the connection broke, and the request must not be sent twice")

// gotConn learns the connection; again if that of before has turned out to be stale. net/http sends a request again that has a
// field Idempotency-Key, of which API servers know nothing, and a GET although it may be an exec.
func (f *flight) gotConn(info httptrace.GotConnInfo) {
	f.mu.Lock()
	f.before = f.sent()
	if f.before && !f.mayRepeat() {
		f.mu.Unlock()
		f.cancel(errTwice)
		info.Conn.Close() // net/http may not look at the context any more
		return
	}
	f.connected, f.reused, f.conn, f.base = true, info.Reused, below(info.Conn), 0
	if f.conn != nil {
		f.base = f.conn.written.Load()
	}
	t, ok := info.Conn.(*tls.Conn)
	f.shared = ok && t.ConnectionState().NegotiatedProtocol == "h2"
	f.mu.Unlock()
	if f.outer != nil && f.outer.GotConn != nil {
		f.outer.GotConn(info)
	}
}
