package nettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"varco.dev/internal/nettest/sctp"
)

const (
	dropTimeout = 300 * time.Millisecond // no answer for so long is a drop
	replyWithin = 5 * time.Second        // an answer must come by then
)

// What a Client meets beside answers.
var (
	ErrRefused  = errors.New("refused") // the client was told at once
	ErrNoAnswer = errors.New("no answer")
)

// Client opens connections to servers that answer as Echo does.
type Client struct {
	Host     *Namespace
	Protocol string         // "tcp", "udp" or "sctp"
	Local    netip.AddrPort // optional: where connections come from; of SCTP only the address counts
	Patience time.Duration  // optional: for how long an answer is waited for; default: 5 seconds
}

// Answer is what a server says: its name, and the address that it saw.
type Answer struct {
	Server string
	Client netip.AddrPort
}

// Ask opens one connection and closes it. It returns ErrRefused or ErrNoAnswer if there is no server.
func (c Client) Ask(ctx context.Context, to netip.AddrPort) (a Answer, err error) {
	if c.Patience == 0 {
		c.Patience = replyWithin
	}
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	conn, err := c.Dial(ctx, to)
	if err != nil {
		return a, classify(ctx, err)
	}
	defer hangUp(conn)
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	text, err := exchange(conn, c.Protocol)
	if err != nil {
		return a, classify(ctx, err)
	}
	server, client, _ := strings.Cut(text, " ")
	seen, err := netip.ParseAddrPort(client)
	if err != nil {
		return a, fmt.Errorf("answer %q is not of an echo server: %w", text, err)
	}
	return Answer{server, netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port())}, nil
}

// hangUp ends a connection without waiting for the peer.
func hangUp(c net.Conn) {
	if a, ok := c.(*sctp.Conn); ok {
		a.Abort()
		return
	}
	c.Close()
}

// Dial opens a connection that the caller closes.
func (c Client) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if c.Protocol == "sctp" {
		d := sctp.Dialer{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return c.Host.dial(ctx, c.local(network), network, address)
		}}
		return d.DialContext(ctx, to.String())
	}
	return c.Host.dial(ctx, c.local(c.Protocol), c.Protocol, to.String())
}

// local is Local in the form that net wants for a network; nil leaves it to the kernel.
func (c Client) local(network string) net.Addr {
	ip := net.IP(c.Local.Addr().AsSlice())
	switch {
	case !c.Local.IsValid():
		return nil
	case network == "tcp":
		return &net.TCPAddr{IP: ip, Port: int(c.Local.Port())}
	case network == "udp":
		return &net.UDPAddr{IP: ip, Port: int(c.Local.Port())}
	}
	return &net.IPAddr{IP: ip}
}

// exchange returns the server's answer. TCP's servers speak first.
func exchange(conn net.Conn, protocol string) (string, error) {
	if protocol != "tcp" {
		_, err := io.WriteString(conn, "hello")
		// EPERM is what a datagram's sender hears of its own machine's filters, be it that they reject or drop. If they
		// reject, an ICMP error follows.
		if err != nil && !errors.Is(err, syscall.EPERM) {
			return "", err
		}
	}
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// classify tells refusals and silence from what should not happen.
func classify(ctx context.Context, err error) error {
	var t interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.As(err, &t) && t.Timeout(), ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return err
}
