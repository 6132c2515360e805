package observe

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// accessLevel is verbosity 3, where kubectl proxy says what it accepts.
const accessLevel = slog.LevelInfo - 3

// clientGone is the code of a request whose client left before there was an answer, as nginx has it.
const clientGone = 499

// Access returns a handler that counts the requests of another one, and logs each at verbosity 3 when it ends. Neither the
// metrics nor the log hold credentials: of a query, values of names that sound like one are left out. Handlers reach what is
// below the ResponseWriter with http.ResponseController; one that has MarkLongRunning called before its answer begins is
// not measured for how long it took.
func Access(log *slog.Logger, metrics *AccessMetrics, next http.Handler) http.Handler {
	writers := &sync.Pool{New: func() any { return new(accessWriter) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := writers.Get().(*accessWriter)
		*a = accessWriter{ResponseWriter: w, metrics: metrics, began: time.Now(), aborted: true}
		metrics.inFlight.Add(1)
		defer func() {
			metrics.inFlight.Add(-1)
			a.account(r)
			if log.Enabled(context.Background(), accessLevel) {
				a.log(log, r)
			}
			*a = accessWriter{}
			writers.Put(a)
		}()
		next.ServeHTTP(a, a.counting(r))
		a.aborted = false
	})
}

// accessWriter is a ResponseWriter that remembers what was answered.
type accessWriter struct {
	http.ResponseWriter
	metrics  *AccessMetrics
	began    time.Time
	code     int // 0: nothing was answered
	sent     int64
	received int64        // of a body whose length was announced
	body     *countedBody // of another one
	conn     *countedConn // upgraded
	long     bool
	aborted  bool // the handler has panicked
}

// counting returns the request with its body counted. A body of known length is taken as read.
func (a *accessWriter) counting(r *http.Request) *http.Request {
	if r.ContentLength >= 0 || r.Body == nil {
		a.received = max(r.ContentLength, 0)
		return r
	}
	a.body = &countedBody{ReadCloser: r.Body}
	counted := *r // the server looks at the type of the body of its own
	counted.Body = a.body
	return &counted
}

// account adds the request to the metrics.
func (a *accessWriter) account(r *http.Request) {
	switch {
	case a.code == 0 && a.aborted:
		a.code = clientGone
	case a.code == 0:
		a.code = http.StatusOK // as net/http answers
	}
	if a.body != nil {
		a.received = a.body.read.Load()
	}
	a.metrics.sent.Add(a.sent)
	a.metrics.received.Add(a.received)
	a.metrics.requests(a.code, r.Method).Inc()
	if a.conn != nil {
		a.metrics.upgrades.Add(-1)
		a.sent += a.conn.sent.Load()
		a.received += a.conn.received.Load()
	} else if !a.long {
		a.metrics.durations.Observe(time.Since(a.began).Seconds())
	}
}

// log says what was asked for and what was answered.
func (a *accessWriter) log(log *slog.Logger, r *http.Request) {
	attrs := make([]slog.Attr, 0, 11)
	attrs = append(attrs, slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", pathToTell(r.URL.EscapedPath())))
	if r.URL.RawQuery != "" {
		attrs = append(attrs, slog.String("query", queryToTell(r.URL.RawQuery)))
	}
	attrs = append(attrs, slog.Int("code", a.code), slog.Int64("sent", a.sent), slog.Int64("received", a.received),
		slog.Duration("took", time.Since(a.began)), slog.String("remote", r.RemoteAddr))
	if a.conn != nil && a.code == http.StatusSwitchingProtocols {
		attrs = append(attrs, slog.Bool("upgraded", true))
	}
	if a.aborted {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	log.LogAttrs(context.Background(), accessLevel, "request", attrs...)
}

// hidden stands for what is not told.
const hidden = "..."

// pathToTell returns a path without the token that follows /token/.
func pathToTell(path string) string {
	rest, ok := strings.CutPrefix(path, "/token/")
	if !ok {
		return path
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return "/token/" + hidden + rest[i:]
	}
	return "/token/" + hidden
}

// queryToTell returns a query without values that may be credentials, such as that of varco-token.
func queryToTell(query string) string {
	parts := strings.Split(query, "&")
	for i, part := range parts {
		name, _, found := strings.Cut(part, "=")
		if found && soundsSecret(name) {
			parts[i] = name + "=" + hidden
		}
	}
	return strings.Join(parts, "&")
}

// soundsSecret tells whether a parameter's name is that of a credential. An escaped letter could hide one.
func soundsSecret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"token", "secret", "password", "key", "auth", "code", "sig", "credential", "%"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// MarkLongRunning has the time that the answer takes left out of the metrics. httpproxy calls it.
func (a *accessWriter) MarkLongRunning() { a.long = true }

// Unwrap is for http.ResponseController.
func (a *accessWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush implements http.Flusher.
func (a *accessWriter) Flush() { _ = a.FlushError() }

// FlushError is for http.ResponseController.
func (a *accessWriter) FlushError() error {
	a.began200()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// WriteHeader implements http.ResponseWriter.
func (a *accessWriter) WriteHeader(code int) {
	if a.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

// began200 notes an answer that has begun without a code.
func (a *accessWriter) began200() {
	if a.code == 0 {
		a.code = http.StatusOK
	}
}

// Write implements io.Writer.
func (a *accessWriter) Write(p []byte) (int, error) {
	a.began200()
	n, err := a.ResponseWriter.Write(p)
	a.sent += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom: net/http sends files without copying them.
func (a *accessWriter) ReadFrom(r io.Reader) (n int64, err error) {
	a.began200()
	if below, ok := a.ResponseWriter.(io.ReaderFrom); ok {
		n, err = below.ReadFrom(r)
	} else {
		n, err = io.Copy(struct{ io.Writer }{a.ResponseWriter}, r)
	}
	a.sent += n
	return n, err
}

// Hijack implements http.Hijacker. The request counts as an open upgrade until its handler returns.
func (a *accessWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if a.code == 0 {
		a.code = http.StatusSwitchingProtocols
	}
	a.metrics.upgrades.Add(1)
	a.conn = &countedConn{Conn: conn, metrics: a.metrics}
	return a.conn, rw, nil
}

// countedBody is a request's body that is counted.
type countedBody struct {
	io.ReadCloser
	read atomic.Int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	return n, err
}

// countedConn is an upgraded connection that is counted, in the metrics as it goes.
type countedConn struct {
	net.Conn
	metrics        *AccessMetrics
	sent, received atomic.Int64
}

// NetConn returns the connection below, as that of crypto/tls does.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the direction of the writes if the connection below can.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// Read implements net.Conn.
func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	c.metrics.received.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	c.metrics.sent.Add(int64(n))
	return n, err
}
