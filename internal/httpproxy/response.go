package httpproxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
)

const (
	// smallBuffer is what an answer holds while it waits for more: a watch does so for hours.
	smallBuffer = 8 << 10
	// largeBuffer is what is written to the client at once while bulk data flows.
	largeBuffer = 64 << 10
	// oneRecord is more than a TLS record has with all that is around its 16 KiB (RFC 8446, 5.2: 256 bytes and a header of
	// 5; the ciphers in use of TLS 1.2 stay below as well). Whoever has so many bytes can read without waiting.
	oneRecord = 17 << 10
)

// buffers are those of answers that are not in use.
type buffers struct{ small, large *sync.Pool }

func newBuffers() buffers {
	pool := func(size int) *sync.Pool {
		return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
	}
	return buffers{pool(smallBuffer), pool(largeBuffer)}
}

func (b buffers) get(large bool) *[]byte {
	if large {
		return b.large.Get().(*[]byte)
	}
	return b.small.Get().(*[]byte)
}

func (b buffers) put(buf *[]byte) {
	if len(*buf) == largeBuffer {
		b.large.Put(buf)
	} else {
		b.small.Put(buf)
	}
}

// answer passes an answer on.
func (x *exchange) answer(resp *http.Response) {
	if x.mayDecompress() {
		decompress(resp)
	}
	x.answerHeader(resp)
	err := x.answerBody(resp)
	if err == nil && context.Cause(x.out.Context()) == errDraining {
		err = errDraining // a target may end in order because it sees the proxy leave
	}
	if err != nil {
		if !x.isDrained() || resp.ContentLength >= 0 {
			_ = http.NewResponseController(x.w).Flush() // the client may have what has come
			x.abort(err)
		}
		return
	}
	x.trailers(resp)
}

// answerHeader passes on the answer's header. What others have put into the client's stays there.
func (x *exchange) answerHeader(resp *http.Response) {
	h := x.w.Header()
	drop := connectionOptions(resp.Header)
	for k, v := range resp.Header {
		if isHop(k) || drop.has(k) {
			continue
		}
		if ours, ok := h[k]; ok {
			v = append(ours[:len(ours):len(ours)], v...)
		}
		h[k] = v
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
	for k := range resp.Trailer {
		h["Trailer"] = append(h["Trailer"], k)
	}
	if len(resp.Trailer) > 0 && x.r.ProtoMajor == 1 {
		delete(h, "Content-Length") // what has come over HTTP/2 may have both; here a length leaves no room for trailers
	}
	x.closeIfLeft()
	if up := resp.Header["Upgrade"]; resp.StatusCode == http.StatusUpgradeRequired && len(up) > 0 && x.r.ProtoMajor == 1 {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, up // RFC 9110, 15.5.22: the answer says to what
	}
	x.w.WriteHeader(resp.StatusCode)
}

// closeIfLeft has the connection closed after an answer that begins before all of the body was heard. Otherwise net/http would
// read what is left before it writes, and the client may wait for the answer before it goes on.
func (x *exchange) closeIfLeft() {
	if x.body.left() && x.r.ProtoMajor == 1 {
		x.w.Header()["Connection"] = []string{"close"}
	}
}

// answerBody passes on the answer's body: each read at once, unless more is at hand, which goes with it.
func (x *exchange) answerBody(resp *http.Response) error {
	if resp.ContentLength == 0 || resp.Body == http.NoBody {
		return nil
	}
	conn := x.gathering(resp)
	buf := x.p.buffers.get(resp.ContentLength > smallBuffer)
	defer func() { x.p.buffers.put(buf) }()
	flush := http.NewResponseController(x.w)
	if resp.ContentLength < 0 || resp.ContentLength > smallBuffer {
		// The header need not wait: the first event of a watch may take hours. That of a small answer does, since its body
		// is there too but for rare cases, and a write of its own is a tenth of what such a request costs.
		_ = flush.Flush()
	}
	for sent := int64(0); ; {
		n, err := resp.Body.Read(*buf)
		for err == nil && n < len(*buf) && conn != nil && conn.Buffered() >= oneRecord {
			var more int
			more, err = resp.Body.Read((*buf)[n:])
			n += more
		}
		if n > 0 {
			if _, err := x.w.Write((*buf)[:n]); err != nil {
				return err
			}
			sent += int64(n)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case sent == resp.ContentLength:
			// The end of the handler flushes what is left, and reading on would tell nothing new.
		default:
			_ = flush.Flush() // a client that is gone is noticed by the next write
		}
		buf = x.resize(buf, n)
	}
}

// resize returns a large buffer if this one was filled, and a small one if it was not nearly.
func (x *exchange) resize(buf *[]byte, n int) *[]byte {
	switch large := len(*buf) == largeBuffer; {
	case !large && n == len(*buf), large && n < smallBuffer:
		x.p.buffers.put(buf)
		return x.p.buffers.get(!large)
	}
	return buf
}

// gathering returns the connection whose buffer tells whether more of an answer is at hand; nil if none does. A connection
// of HTTP/2 has other answers in it as well, and what is at hand of a packed answer may be too little to unpack any of it.
func (x *exchange) gathering(resp *http.Response) *BufferedConn {
	_, changed := resp.Body.(interface{ Transformed() })
	if _, packed := resp.Body.(*unpacked); packed || changed || resp.ProtoMajor != 1 || resp.ContentLength >= 0 && resp.ContentLength <= smallBuffer {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return bufferedBelow(x.conn)
}

// trailers passes on what comes after the body. Those that were not announced go under the prefix that net/http wants.
func (x *exchange) trailers(resp *http.Response) {
	if len(resp.Trailer) == 0 {
		return
	}
	// Without this, net/http would give a short body a Content-Length, and HTTP/1 has no trailers then.
	_ = http.NewResponseController(x.w).Flush()
	h := x.w.Header()
	announced := strings.Join(h["Trailer"], ",")
	for k, v := range resp.Trailer {
		if !hasToken([]string{announced}, k) {
			k = http.TrailerPrefix + k
		}
		h[k] = v
	}
}

// isDrained tells whether the answer shall end because the proxy does.
func (x *exchange) isDrained() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.drained
}

// drain ends a long-running answer.
func (x *exchange) drain() {
	x.mu.Lock()
	x.drained = true
	x.mu.Unlock()
	x.cancel(context.Canceled)
}
