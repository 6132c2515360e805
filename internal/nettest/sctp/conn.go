package sctp

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pion/logging"
	pion "github.com/pion/sctp"
)

const (
	handshakeTimeout = 10 * time.Second
	shutdownTimeout  = 2 * time.Second
	// idleTimeout ends an association whose peer went away without a word.
	idleTimeout = 5 * time.Minute
)

// Addr is the address of one end of an association.
type Addr netip.AddrPort

// Network returns "sctp".
func (Addr) Network() string { return "sctp" }

// String returns address:port.
func (a Addr) String() string { return netip.AddrPort(a).String() }

// Conn is one stream of an association. Each Write sends one message, and each Read takes one; a message longer than
// the reader's buffer is an error (io.ErrShortBuffer).
type Conn struct {
	*pion.Stream
	local, remote netip.AddrPort
	close         func() error
	abort         func() error
}

var _ net.Conn = (*Conn)(nil)

// LocalAddr returns this end's address, an Addr.
func (c *Conn) LocalAddr() net.Addr { return Addr(c.local) }

// RemoteAddr returns the other end's address, an Addr.
func (c *Conn) RemoteAddr() net.Addr { return Addr(c.remote) }

// Close ends the stream. At the client, whose association has this stream alone, it ends the association too, with
// the handshake of SHUTDOWN, for which it waits two seconds at most.
func (c *Conn) Close() error { return c.close() }

// Abort ends the whole association at once, and tells the peer so. Close waits until the peer has acknowledged all data,
// which it does after 200 ms.
func (c *Conn) Abort() error { return c.abort() }

// options are what both ends of this package ask of an association on a carrier of its packets.
func options(carrier net.Conn) pion.Config {
	return pion.Config{
		NetConn: carrier,
		// The library's errors come back as errors; what it would log beside them says nothing more.
		LoggerFactory: &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled},
		RTOMax:        1000, // milliseconds
	}
}

func abort(a *pion.Association) error {
	a.Abort("closed")
	return a.Close()
}

// end shuts an association down, or cuts it off where the peer does not answer in time.
func end(a *pion.Association) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := a.Shutdown(ctx); err != nil {
		a.Abort("shutdown not answered")
	}
	return a.Close()
}
