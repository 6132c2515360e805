package https

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"varco.dev/internal/httpproxy/vouch"
	"varco.dev/internal/relay"
	"varco.dev/internal/relay/proxyheader"
)

// Pauses after a failed accept, as net/http's: the process may have no descriptors left.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
	saidEvery    = time.Minute
)

// A door that ends takes in those who wait in the kernel's queue, and would be reset: they have connected already. That is until
// nobody has come for some time, and for no longer than a second.
const (
	nobodyWaits = 20 * time.Millisecond
	lastCalls   = time.Second
)

// door is a listener whose clients are counted, and known by their own addresses where the PROXY protocol says them. It
// implements net.Listener.
type door struct {
	name  string
	net   *net.TCPListener
	from  []netip.Prefix
	pairs *vouch.Pairs
	crowd *crowd
	hello time.Duration // for the header of the PROXY protocol

	log *slog.Logger

	said  time.Time // why a connection could not be taken in; run's
	start sync.Once
	ends  sync.Once
	ready chan net.Conn
	over  chan struct{} // closed when the listener is, and all that it had taken in are on their way
}

func (s *Server) newDoor(l Listener) (*door, error) {
	if l.Net == nil || l.CertFile == "" || l.KeyFile == "" {
		return nil, errors.New("a socket, a certificate and its key are required")
	}
	d := &door{
		name: l.Name, net: l.Net, from: l.ProxyFrom, crowd: s.crowd, hello: s.config.HeaderTimeout, log: s.log,
		ready: make(chan net.Conn), over: make(chan struct{}),
		pairs: vouch.NewPairs(vouch.PairsConfig{Serving: vouch.PairFiles{CertFile: l.CertFile, KeyFile: l.KeyFile}, Words: Words()}),
	}
	return d, d.pairs.Load()
}

func sorted(doors map[string]*door) []*door {
	return slices.SortedFunc(maps.Values(doors), func(a, b *door) int { return strings.Compare(a.name, b.name) })
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	d.start.Do(func() { go d.run() })
	select {
	case c := <-d.ready:
		return c, nil
	case <-d.over:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that were taken in before are still handed on: with them, a successor that has the
// same socket loses none.
func (d *door) Close() error { return d.net.Close() }

// end closes it when those who wait have been taken in. http.Server must not be the one who calls it: it lets nobody in meanwhile.
func (d *door) end() {
	d.start.Do(func() { close(d.over) })
	d.ends.Do(func() { _ = d.net.SetDeadline(time.Now()) }) // fails where it is closed
	<-d.over
	d.Close()
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr { return d.net.Addr() }

// run takes connections in until the listener is closed.
func (d *door) run() {
	defer close(d.over)
	pause := firstPause
	for {
		c, err := d.net.AcceptTCP()
		switch {
		case err == nil:
			pause = firstPause
			d.greet(c)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			d.takeLast()
			return
		default:
			d.failed(err)
			time.Sleep(pause)
			pause = min(2*pause, longestPause)
		}
	}
}

// takeLast takes in who waits.
func (d *door) takeLast() {
	for end := time.Now().Add(lastCalls); time.Now().Before(end); {
		_ = d.net.SetDeadline(time.Now().Add(nobodyWaits))
		c, err := d.net.AcceptTCP()
		if err != nil {
			return
		}
		d.greet(c)
	}
}

// failed says why no connection is taken in, now and then.
func (d *door) failed(err error) {
	if now := time.Now(); now.Sub(d.said) >= saidEvery {
		d.said = now
		d.log.Warn("cannot take in connections, trying again", "listener", d.name, "error", err)
	}
}

// greet lets a connection in, once it has said who it is for.
func (d *door) greet(c *net.TCPConn) {
	peer := addrOf(c.RemoteAddr())
	_ = c.SetKeepAliveConfig(probing()) // what cannot be set is closed
	v, ok := d.crowd.enter(c)
	switch {
	case !ok:
	case !d.proxied(peer.Addr()):
		d.admit(v, peer)
	default:
		go d.heed(v)
	}
}

func (d *door) proxied(peer netip.Addr) bool {
	peer = peer.WithZone("") // no prefix contains an address with one
	return slices.ContainsFunc(d.from, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// admit hands a client's connection on. Those that come too late are closed.
func (d *door) admit(v *visitor, client netip.AddrPort) {
	if !d.crowd.name(v, client) {
		return
	}
	select {
	case d.ready <- v:
	case <-d.over:
		v.Close()
	}
}

// heed reads the header of the PROXY protocol.
func (d *door) heed(v *visitor) {
	header, err := v.header(time.Now().Add(d.hello))
	switch {
	case err != nil:
		d.crowd.refuse(v)
	case header.Local || !header.Source.IsValid():
		d.admit(v, addrOf(v.TCPConn.RemoteAddr()))
	default:
		v.remote = net.TCPAddrFromAddrPort(header.Source)
		d.admit(v, header.Source)
	}
}

// visitor is a client's connection.
type visitor struct {
	*net.TCPConn
	remote net.Addr // as the PROXY protocol says; nil: the peer
	ahead  []byte   // what came with its header
	crowd  *crowd
	source netip.Prefix // counted under; invalid: not yet
	once   sync.Once

	silence silence
}

// header reads until the header is whole.
func (v *visitor) header(deadline time.Time) (proxyheader.Header, error) {
	if err := v.SetReadDeadline(deadline); err != nil {
		return proxyheader.Header{}, err
	}
	buf := make([]byte, 0, proxyheader.Max)
	for {
		n, err := v.TCPConn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		header, used, wrong := proxyheader.Parse(buf)
		switch {
		case wrong == nil:
			v.ahead = slices.Clone(buf[used:])
			return header, v.SetReadDeadline(time.Time{})
		case !errors.Is(wrong, proxyheader.ErrIncomplete):
			return header, wrong
		case err != nil:
			return header, fmt.Errorf("read the header of the PROXY protocol: %w", err)
		}
	}
}

// Read implements net.Conn.
func (v *visitor) Read(p []byte) (int, error) {
	if len(v.ahead) > 0 {
		n := copy(p, v.ahead)
		v.ahead = v.ahead[n:]
		return n, nil
	}
	return v.TCPConn.Read(p)
}

// Write implements net.Conn.
func (v *visitor) Write(p []byte) (int, error) {
	n, err := v.TCPConn.Write(p)
	v.silence.wrote.Store(true) // after the bytes, which the patrol would else miss
	return n, err
}

// RemoteAddr implements net.Conn.
func (v *visitor) RemoteAddr() net.Addr {
	if v.remote != nil {
		return v.remote
	}
	return v.TCPConn.RemoteAddr()
}

// NetConn returns the connection below, as that of crypto/tls does.
func (v *visitor) NetConn() net.Conn { return v.TCPConn }

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.crowd.leave(v)
	return v.TCPConn.Close()
}

// addrOf returns the address of a TCP peer.
func addrOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// reset closes a connection so that its client sees an error.
func reset(c *net.TCPConn) { relay.Reset(c) }
