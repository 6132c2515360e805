package httpproxy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// longAgo is when a deadline that has passed was, in seconds since 1970.
const longAgo = 1

// lingerTimeout is how long the server may read what is left of a body after its answer.
const lingerTimeout = time.Second

// requestBody is a client's body on its way to the target. A transport may read it after the answer has begun, and even
// after the exchange has ended, when it belongs to the server again.
type requestBody struct {
	src  io.Reader
	w    http.ResponseWriter
	size int64 // as announced; -1: unknown
	most int64 // what may be sent; 0: no limit

	timeout time.Duration // of one read; 0: none
	reading sync.Mutex    // held while src is read, which may take long; guards the fields below
	done    bool          // src belongs to the server again
	read    int64

	ended atomic.Bool // nothing is left in src

	mu       sync.Mutex // guards the fields below
	untimed  bool       // the deadline is not to be set any more
	deadline time.Time  // zero: it is not set
	err      error      // why the body was not read to its end

	begun       bool // it is being read
	interrupted bool // it is to be read no more, though its client is there
	over        bool // the exchange has ended, and with it the ResponseWriter
}

func newRequestBody(x *exchange) *requestBody {
	b := &requestBody{src: x.r.Body, w: x.w, size: x.r.ContentLength, most: x.t.MaxBody, timeout: x.p.bodyTimeout}
	if x.upgrading || x.long || strings.HasPrefix(x.r.Header.Get("Content-Type"), "application/grpc") {
		b.timeout = 0 // its client may be silent for as long as it likes
	}
	return b
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.ended.Load() {
		// Not asked again: net/http's server closes a body that has ended when the answer begins, and would say so.
		return 0, cmp.Or(b.failed(), io.EOF)
	}
	if b.done {
		return 0, errClosed
	}
	if !b.arm() {
		return 0, errClosed
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	if err == io.EOF || b.size >= 0 && b.read >= b.size {
		b.ended.Store(true)
		b.disarm()
	}
	switch {
	case b.most > 0 && b.read > b.most:
		n, err = 0, tooLarge(b.most)
	case err != nil && err != io.EOF && errors.Is(err, os.ErrDeadlineExceeded):
		err = b.slow()
	case err != nil && err != io.EOF:
		err = fmt.Errorf("%w: %w", errBodyBroken, err)
	}
	if err != nil && err != io.EOF {
		err = b.fail(err)
	}
	return n, err
}

// Close does nothing: the server closes what it has given. A transport that closed it would read what is left of it.
func (b *requestBody) Close() error { return nil }

// fail remembers the error of a read that was not interrupted.
func (b *requestBody) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.interrupted {
		return errClosed
	}
	b.err = err
	return err
}

// arm has the next read fail if nothing comes; false: it must not begin. Deadlines are moved in steps, since moving one is a
// lock on a timer.
func (b *requestBody) arm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun = true
	now := time.Now()
	if b.timeout == 0 || b.untimed || b.deadline.Sub(now) > b.timeout-b.timeout/16 {
		return !b.interrupted
	}
	b.deadline = now.Add(b.timeout)
	if http.NewResponseController(b.w).SetReadDeadline(b.deadline) != nil {
		b.untimed, b.deadline = true, time.Time{} // not a server's
	}
	return true
}

// disarm takes the deadline back: of a connection it would end what follows, which is watched for the client's leaving.
func (b *requestBody) disarm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.untimed = true
	if !b.deadline.IsZero() && !b.over {
		b.deadline = time.Time{}
		_ = http.NewResponseController(b.w).SetReadDeadline(b.deadline)
	}
}

// untime takes the deadline back because the answer has begun: from here on both sides stream, at their own pace.
func (b *requestBody) untime() {
	if b != nil && !b.ended.Load() {
		b.disarm()
	}
}

// left tells whether something of the body has not been read yet.
func (b *requestBody) left() bool { return b != nil && !b.ended.Load() }

// failed returns why the body was not read to its end, or nil. A deadline that has passed may be told by the request's
// context before it is by the read.
func (b *requestBody) failed() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil && !b.deadline.IsZero() && !time.Now().Before(b.deadline) {
		return b.slow()
	}
	return b.err
}

func (b *requestBody) slow() error {
	return fmt.Errorf("%w: it made no progress for %v", errBodySlow, b.timeout)
}

// interrupt ends a read that waits for the client, and those to come. A body that nobody has begun to read is left alone: the
// transport may try another connection.
func (b *requestBody) interrupt() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.begun || b.over || b.ended.Load() {
		return
	}
	b.interrupted, b.untimed = true, true
	_ = http.NewResponseController(b.w).SetReadDeadline(time.Unix(longAgo, 0))
}

// wasInterrupted tells whether net/http takes the client for gone only because of interrupt.
func (b *requestBody) wasInterrupted() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.interrupted
}

// finish gives the body back to the server. A read that waits for the client is interrupted; its connection will be closed
// in any case, since what is left of the body would have to be read first.
func (b *requestBody) finish() {
	if b == nil {
		return
	}
	if !b.reading.TryLock() {
		b.mu.Lock()
		b.untimed = true
		err := http.NewResponseController(b.w).SetReadDeadline(time.Unix(longAgo, 0))
		b.over = err != nil
		b.mu.Unlock()
		if err != nil {
			return // net/http's bodies bear to be read late
		}
		b.reading.Lock()
	}
	b.done = true
	b.reading.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if b.left() {
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Now().Add(lingerTimeout)) // net/http reads on for a while
	}
}

// LeaveBody is for answers that do not want the request's body. Over HTTP/1, net/http reads up to 256 KiB of it before it sends
// them, so that the connection can be used again, and would wait for a client that sends nothing for as long as it likes.
func LeaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTimeout)) // one without deadlines does not wait
	}
}

func tooLarge(most int64) error {
	return Status(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge,
		fmt.Sprintf("%v: at most %d bytes are allowed", errBodyTooLarge, most))
}
