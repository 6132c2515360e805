package balance

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"syscall"
)

// counter is a connection that knows how many bytes were written to it so far. It may be asked at any time.
type counter interface{ Written() int64 }

// counted is what was written to a connection before a request.
type counted struct {
	by     counter // nil: it does not know
	before int64
	tls    bool
}

// alertSize is the most that a TLS connection writes when it is closed: one alert, with the header, the nonce and the tag of
// TLS 1.2 (RFC 5288). No record that holds a request is as small, since its first line alone and the name of the Host field are longer.
const alertSize = 5 + 8 + 2 + 16

// countedOf asks the first connection that knows, from TLS downwards.
func countedOf(c net.Conn) (out counted) {
	for c != nil {
		if w, ok := c.(counter); ok {
			out.by, out.before = w, w.Written()
			return out
		}
		if _, ok := c.(*tls.Conn); ok {
			out.tls = true
		}
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = below.NetConn()
	}
	return out
}

// moved tells whether something of a request may have been written.
func (c counted) moved() bool {
	if c.by == nil {
		return true
	}
	n := c.by.Written() - c.before
	return n > alertSize || n > 0 && !c.tls
}

// dropEnded closes a connection that was idle and that the target has closed meanwhile, before a request goes out on it that must
// not be sent twice. net/http then finds that it cannot write, and takes another one. It learns of an end by a goroutine that
// has to be run first; of those requests that come in between, it sends again only those that are idempotent.
func (t *try) dropEnded(info httptrace.GotConnInfo) {
	if info.Reused && info.WasIdle && !t.mayTwice && !t.h2c && ended(info.Conn) {
		info.Conn.Close()
	}
}

// isHTTP2 tells whether a connection of TLS is one that requests share.
func isHTTP2(c net.Conn) bool {
	over, ok := c.(*tls.Conn)
	return ok && over.ConnectionState().NegotiatedProtocol == "h2"
}

// ended tells whether an idle connection of HTTP/1 has something to read: that is its end, or a target that says why it ends.
func ended(c net.Conn) bool {
	for {
		switch known := c.(type) {
		case *tls.Conn:
			if isHTTP2(known) {
				return false
			}
			c = known.NetConn()
		case syscall.Conn:
			return readable(known)
		case interface{ NetConn() net.Conn }:
			c = known.NetConn()
		default:
			return false
		}
	}
}
