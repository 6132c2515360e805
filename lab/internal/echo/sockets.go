package echo

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"varco.dev/internal/nettest/sctp"
)

// streamServer echoes TCP connections and keeps those that are open.
type streamServer struct {
	handlers sync.WaitGroup

	// mu guards the fields below.
	mu   sync.Mutex
	open map[net.Conn]struct{}
	over bool // no further connection is taken
}

func (s *streamServer) serveTCP(l net.Listener, id Identity) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client left before it was accepted, or files ran out for a moment
		}
		if !s.add(c) {
			c.Close()
			return
		}
		s.handlers.Go(func() {
			defer s.remove(c)
			echoTCP(c, id)
		})
	}
}

// echoTCP sends the greeting and then everything back; once the client has closed its half, and has all of it, the
// other half is closed too.
func echoTCP(c net.Conn, id Identity) {
	defer c.Close()
	if _, err := io.WriteString(c, id.Line(c.RemoteAddr())); err != nil {
		return
	}
	_, _ = io.Copy(c, c) // whichever end broke it off
}

func (s *streamServer) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	if s.open == nil {
		s.open = make(map[net.Conn]struct{})
	}
	s.open[c] = struct{}{}
	return true
}

func (s *streamServer) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// shutdown stops accepting and waits for the open connections to end, in the time of ctx; false means that some had
// to be cut off.
func (s *streamServer) shutdown(ctx context.Context, l net.Listener) bool {
	l.Close()
	done := make(chan struct{})
	go func() {
		s.handlers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.over = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	<-done
	return false
}

func listenUDP(address string) (*net.UDPConn, error) {
	l, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	c := l.(*net.UDPConn)
	// A socket for IPv4 alone has no such option, and needs none as long as its host has one address.
	_ = ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true)
	return c, nil
}

// serveUDP answers each datagram with one: the identity's line, then what came in.
func serveUDP(c *net.UDPConn, id Identity) {
	in, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, oobn, _, client, err := c.ReadMsgUDPAddrPort(in, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		seen := net.UDPAddrFromAddrPort(netip.AddrPortFrom(client.Addr().Unmap(), client.Port()))
		answer := append([]byte(id.Line(seen)), in[:n]...)
		// What cannot be sent is lost as any datagram may be.
		_, _, _ = c.WriteMsgUDPAddrPort(answer, answerFrom(oob[:oobn]), client)
	}
}

// answerFrom makes the control message that sends an answer from the address that was asked, out of the one that came
// in: a host with several addresses would otherwise take the one nearest to the client. The interface is left open.
func answerFrom(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
			return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])})
		}
	}
	return nil
}

// serveSCTP answers each message of each stream with one, as serveUDP does.
func serveSCTP(l *sctp.Listener, id Identity) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { echoSCTP(c, id) })
	}
}

func echoSCTP(c *sctp.Conn, id Identity) {
	defer c.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(append([]byte(id.Line(c.RemoteAddr())), b[:n]...)); err != nil {
			return
		}
	}
}
