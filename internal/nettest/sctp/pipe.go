package sctp

import (
	"net"
	"sync"
	"time"

	"github.com/pion/transport/v5/packetio"
)

// pipe carries the packets of one association of a listener: those that came in wait in a buffer, those that go out
// are written to the listener's socket.
type pipe struct {
	*packetio.Buffer
	ends
	socket socket
	idle   *time.Timer
	close  func() error
}

var _ net.Conn = (*pipe)(nil)

func newPipe(s socket, e ends) *pipe {
	p := &pipe{Buffer: packetio.NewBuffer(), ends: e, socket: s}
	p.SetLimitSize(1 << 20)
	p.close = sync.OnceValue(p.Buffer.Close)
	p.idle = time.AfterFunc(idleTimeout, func() { p.Close() })
	return p
}

// deliver adds a packet. One too many is lost; SCTP sends it again.
func (p *pipe) deliver(b []byte) {
	p.idle.Reset(idleTimeout)
	_, _ = p.Buffer.Write(b, nil)
}

func (p *pipe) Read(b []byte) (int, error) {
	n, _, err := p.Buffer.Read(b, nil)
	return n, err
}

func (p *pipe) Write(b []byte) (int, error) {
	return len(b), p.socket.write(b, p.local.Addr(), p.remote.Addr())
}

func (p *pipe) Close() error {
	p.idle.Stop()
	return p.close()
}

func (p *pipe) LocalAddr() net.Addr                { return Addr(p.local) }
func (p *pipe) RemoteAddr() net.Addr               { return Addr(p.remote) }
func (p *pipe) SetDeadline(t time.Time) error      { return p.SetReadDeadline(t) }
func (p *pipe) SetWriteDeadline(_ time.Time) error { return nil }
