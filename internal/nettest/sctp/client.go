package sctp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	pion "github.com/pion/sctp"
)

// pionPort is the port that the library puts at both ends of an association that it opens.
const pionPort = 5000

// Ports are the two ports of an association.
type Ports struct{ Local, Remote uint16 }

// Client opens an association, and stream 0 of it, over a raw IP socket that is connected to the peer: a net.IPConn
// from dialling network "ip4:132" or "ip6:132". It takes the socket over, also when it fails. Two associations at a
// time to the same peer must differ in their local port. A refusal (ABORT, or an ICMP error) fails at once.
func Client(ctx context.Context, raw net.Conn, ports Ports) (*Conn, error) {
	ip, ok := raw.(*net.IPConn)
	if !ok {
		return nil, fmt.Errorf("open association: %T is no raw IP socket", raw)
	}
	carrier := &clientCarrier{IPConn: ip, ports: ports}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	a, err := pion.ClientContext(ctx, options(carrier), pion.WithEnableInterleaving(false))
	if err != nil {
		return nil, errors.Join(carrier.cause(err), carrier.Close())
	}
	s, err := a.OpenStream(0, 0)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &Conn{
		Stream: s,
		local:  netip.AddrPortFrom(addrOf(ip.LocalAddr()), ports.Local),
		remote: netip.AddrPortFrom(addrOf(ip.RemoteAddr()), ports.Remote),
		close:  func() error { return end(a) },
		abort:  func() error { return abort(a) },
	}, nil
}

// clientCarrier carries the packets of one association over a connected raw socket, which sees those of all other
// associations with that peer as well, and exchanges the library's fixed ports for the true ones.
type clientCarrier struct {
	*net.IPConn
	ports   Ports
	refused atomic.Pointer[error]
}

func (c *clientCarrier) Read(b []byte) (int, error) {
	buf := make([]byte, maxPacket)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			c.refused.CompareAndSwap(nil, &err)
			return 0, err
		}
		p, err := check(buf[:n])
		if err != nil || p.source() != c.ports.Remote || p.destination() != c.ports.Local {
			continue
		}
		return copy(b, withPorts(p, pionPort, pionPort)), nil
	}
}

func (c *clientCarrier) Write(b []byte) (int, error) {
	_, err := c.IPConn.Write(withPorts(b, c.ports.Local, c.ports.Remote))
	if errors.Is(err, syscall.EPERM) { // a filter of this machine took the packet: lost, unless an ICMP error follows
		return len(b), nil
	}
	if err != nil {
		c.refused.CompareAndSwap(nil, &err)
	}
	return len(b), err
}

// cause returns the network's reason for a failed handshake where it gave one, since the library keeps it to itself.
func (c *clientCarrier) cause(err error) error {
	if r := c.refused.Load(); r != nil && !errors.Is(*r, net.ErrClosed) && !isTimeout(*r) {
		return *r
	}
	if errors.Is(err, pion.ErrAssociationClosedBeforeConn) {
		return errors.New("association aborted by the peer")
	}
	return err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

var _ net.Conn = (*clientCarrier)(nil)

// Dialer opens associations, each from another local port. The zero value dials from the network namespace of the
// caller. It may be used by several goroutines.
type Dialer struct {
	// Dial opens the raw socket, for which it is given network "ip4:132" or "ip6:132". Optional: default net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	start sync.Once
	next  atomic.Uint32
}

// Local ports of a Dialer: those that IANA left for such use (RFC 6335, section 6).
const (
	firstPort = 49152
	portCount = 65536 - firstPort
)

// DialContext opens an association to address, which must be numeric.
func (d *Dialer) DialContext(ctx context.Context, address string) (*Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("open association: %w", err)
	}
	dial := d.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	raw, err := dial(ctx, rawNetwork(to.Addr()), to.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("open association to %s: %w", address, err)
	}
	c, err := Client(ctx, raw, Ports{Local: d.localPort(), Remote: to.Port()})
	if err != nil {
		return nil, fmt.Errorf("open association to %s: %w", address, err)
	}
	return c, nil
}

// localPort counts up from a random port, so that neither two Dialers nor two associations soon after each other meet.
func (d *Dialer) localPort() uint16 {
	d.start.Do(func() { d.next.Store(rand.Uint32N(portCount)) })
	return uint16(firstPort + d.next.Add(1)%portCount)
}

func rawNetwork(a netip.Addr) string {
	if a.Is4() {
		return fmt.Sprintf("ip4:%d", Protocol)
	}
	return fmt.Sprintf("ip6:%d", Protocol)
}
