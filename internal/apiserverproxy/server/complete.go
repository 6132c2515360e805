package server

import (
	"bufio"
	"net"
	"net/http"
)

// complete has handlers see a ResponseWriter with all that those of net/http have: upstream's wrappers, which the audit log
// needs, look for it in the one just below theirs, and cannot hijack connections otherwise.
func complete(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&completeWriter{w}, r)
	})
}

type completeWriter struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController.
func (w *completeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *completeWriter) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *completeWriter) FlushError() error {
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker. It fails with http.ErrNotSupported where a connection cannot be had.
func (w *completeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// CloseNotify returns a channel that nothing comes from: no handler listens any more, but its being there is asked for.
func (w *completeWriter) CloseNotify() <-chan bool { return make(chan bool) }
