package balance

import (
	"context"
	"net/http/httptrace"
	"time"

	"varco.dev/internal/httpproxy/resend"
)

// traced has the try told of its connections.
func (t *try) traced(ctx context.Context) context.Context {
	t.outer = httptrace.ContextClientTrace(ctx)
	if t.outer != nil {
		t.trace = *t.outer
	}
	t.trace.GetConn, t.trace.GotConn, t.trace.GotFirstResponseByte = t.getConn, t.gotConn, t.firstByte
	if t.outer == nil {
		return httptrace.WithClientTrace(ctx, &t.trace)
	}
	t.ctx = resend.Traced{Context: ctx, Trace: &t.trace}
	return &t.ctx
}

// settle looks at what was written to the connection that the try has had last.
func (t *try) settle() {
	if t.connected {
		t.sent = t.sent || t.conn.moved()
	}
}

// getConn is called when a connection is needed; again if that of before has turned out to be stale.
func (t *try) getConn(hostPort string) {
	t.mu.Lock()
	t.settle()
	t.connected, t.heard = false, false
	if t.once && t.sent && !t.shared {
		t.stopped = true
		t.cancel(errSent)
	}
	if t.hurry && !t.late {
		if t.timer == nil {
			t.timer = time.AfterFunc(connectTimeout, t.tooLate)
		} else {
			t.timer.Reset(connectTimeout)
		}
	}
	t.mu.Unlock()
	if t.outer != nil && t.outer.GetConn != nil {
		t.outer.GetConn(hostPort)
	}
}

// tooLate gives up if there is no connection yet.
func (t *try) tooLate() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.connected {
		t.late = true
		t.cancel(&slowConnect{t.at.host})
	}
}

func (t *try) stopTimer() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (t *try) gotConn(info httptrace.GotConnInfo) {
	t.mu.Lock()
	t.stopTimer()
	t.connected, t.reused, t.conn, t.got = true, info.Reused, countedOf(info.Conn), time.Now()
	t.shared = t.h2c || t.once && isHTTP2(info.Conn)
	stopped := t.stopped
	t.mu.Unlock()
	if stopped {
		info.Conn.Close() // net/http may not have looked at the context
	}
	t.dropEnded(info)
	if t.outer != nil && t.outer.GotConn != nil {
		t.outer.GotConn(info)
	}
}

func (t *try) firstByte() {
	t.mu.Lock()
	t.heard = true
	t.mu.Unlock()
	if t.outer != nil && t.outer.GotFirstResponseByte != nil {
		t.outer.GotFirstResponseByte()
	}
}
