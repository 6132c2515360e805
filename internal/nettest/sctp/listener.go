package sctp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	pion "github.com/pion/sctp"
)

// maxAssociations is how many a listener holds at a time; it refuses the next one.
const maxAssociations = 8192

// Listener accepts the streams of all associations to one port. Packets to other ports are not its own and are left
// unanswered. Close it after use.
type Listener struct {
	port    uint16
	sockets []socket
	conns   chan *Conn
	done    chan struct{}
	readers sync.WaitGroup
	serving sync.WaitGroup

	// mu guards the fields below.
	mu     sync.Mutex
	pipes  map[ends]*pipe // both ends -> the association's packets
	closed bool
}

// ends tell one association from another: its two addresses and two ports.
type ends struct{ local, remote netip.AddrPort }

// Listen accepts associations to an address such as "[::]:7001", which stands for both families, or ":7001".
func Listen(address string) (*Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen for SCTP: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("listen for SCTP on %q: %w", address, err)
	}
	var addr netip.Addr
	if host != "" {
		if addr, err = netip.ParseAddr(host); err != nil {
			return nil, fmt.Errorf("listen for SCTP: %w", err)
		}
	}
	sockets, err := openSockets(addr)
	if err != nil {
		return nil, err
	}
	l := &Listener{
		port: uint16(number), sockets: sockets,
		conns: make(chan *Conn), done: make(chan struct{}), pipes: make(map[ends]*pipe),
	}
	for _, s := range sockets {
		l.readers.Go(func() { l.receive(s) })
	}
	return l, nil
}

// Accept waits for the first message on the next stream. After Close it returns net.ErrClosed.
func (l *Listener) Accept() (*Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close refuses new associations, shuts down those that are open, which takes two seconds at most, and closes the
// sockets.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.done)
	l.serving.Wait()
	err := closeAll(l.sockets)
	l.readers.Wait()
	return err
}

// receive hands each packet that comes in to its association.
func (l *Listener) receive(s socket) {
	buf := make([]byte, maxPacket)
	for {
		n, src, dst, err := s.read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about some earlier packet
		}
		p, err := check(buf[:n])
		if err != nil || p.destination() != l.port || !src.IsValid() {
			continue
		}
		e := ends{netip.AddrPortFrom(dst, p.destination()), netip.AddrPortFrom(src, p.source())}
		l.deliver(s, e, p)
	}
}

func (l *Listener) deliver(s socket, e ends, p packet) {
	if pipe := l.pipeOf(s, e, p.chunk()); pipe != nil {
		pipe.deliver(p)
		return
	}
	if answer := answerToStray(p); answer != nil {
		// What cannot be sent is lost as any packet may be; the peer tries again.
		_ = s.write(answer, e.local.Addr(), e.remote.Addr())
	}
}

// pipeOf returns the pipe of an association, a new one if the packet's first chunk begins it, nil if there is none.
func (l *Listener) pipeOf(s socket, e ends, first byte) *pipe {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.pipes[e]; ok {
		return p
	}
	if first != chunkInit || l.closed || len(l.pipes) >= maxAssociations {
		return nil
	}
	p := newPipe(s, e)
	l.pipes[e] = p
	l.serving.Go(func() {
		l.serve(p)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.pipes, e)
	})
	return p
}

// serve sets the association up and accepts its streams until one of the two ends closes it.
func (l *Listener) serve(p *pipe) {
	defer p.Close()
	timeout := time.AfterFunc(handshakeTimeout, func() { p.Close() })
	stop := make(chan struct{})
	defer close(stop)
	go func() { // an association that is not set up yet cannot be shut down
		select {
		case <-l.done:
			timeout.Reset(shutdownTimeout)
		case <-stop:
		}
	}()
	a, err := pion.ServerWithOptions(options(p), pion.WithEnableInterleaving(false))
	if !timeout.Stop() || err != nil {
		return
	}
	l.acceptStreams(a, p.ends)
}

func conn(a *pion.Association, s *pion.Stream, e ends) *Conn {
	return &Conn{Stream: s, local: e.local, remote: e.remote, close: s.Close, abort: func() error { return abort(a) }}
}

func (l *Listener) acceptStreams(a *pion.Association, e ends) {
	streams := make(chan *pion.Stream)
	go func() {
		defer close(streams)
		for {
			s, err := a.AcceptStream()
			if err != nil {
				return
			}
			s.SetDefaultPayloadType(0)
			select {
			case streams <- s:
			case <-l.done:
				return
			}
		}
	}()
	for {
		select {
		case s, ok := <-streams:
			if !ok {
				_ = a.Close()
				return
			}
			select {
			case l.conns <- conn(a, s, e):
			case <-l.done:
			}
		case <-l.done:
			_ = end(a)
			return
		}
	}
}
