package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of the socket. A transaction is one message to it, which the kernel works off before the call returns, so the
// buffer must take all of it; what comes back is small.
const (
	receiveBuffer = 1 << 20          // bytes: the errors of thousands of messages
	minSendBuffer = 1 << 20          // bytes: 10,000 elements
	maxSendBuffer = 1 << 29          // bytes: 6 million elements; the kernel's own limit is twice that
	datagramSize  = 64 << 10         // bytes: the kernel makes datagrams of 32 KiB at most
	answerTimeout = 30 * time.Second // for an answer that should be there at once
)

// errInterrupted tells that the kernel's tables changed while it was telling what they hold.
var errInterrupted = errors.New("the tables changed while they were read")

// wire carries requests to the kernel. Its methods are not called concurrently.
type wire interface {
	// send hands over messages and returns when the kernel has worked them off.
	send(messages []byte) error
	// receive returns messages of the kernel, which are valid until the next call. It returns none if none is there;
	// wait makes it block until there are some, or fail after answerTimeout.
	receive(wait bool) ([]byte, error)
	close() error
}

// socket is the wire to the real kernel. It stays open from one transaction to the next: closing a netfilter socket waits
// until the kernel has destroyed what was deleted, which takes an RCU grace period: 10 ms and more.
type socket struct {
	conn       *netlink.Conn
	raw        syscall.RawConn
	sendBuffer int
	datagram   []byte
}

// dial opens a socket in the network namespace, 0 for the own one.
func dial(netns int) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := &socket{conn: conn, datagram: make([]byte, datagramSize)}
	s.raw, err = conn.SyscallConn()
	err = errors.Join(err,
		conn.SetReadBuffer(receiveBuffer),
		// An error is to come without a copy of the message that it is about, but with the kernel's words for it.
		conn.SetOption(netlink.CapAcknowledge, true),
		conn.SetOption(netlink.ExtendedAcknowledge, true),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up netlink socket: %w", err), conn.Close())
	}
	return s, nil
}

// id is the number that tells this sender from others in the notifications of the kernel.
func (s *socket) id() uint32 { return s.conn.PID() }

func (s *socket) close() error { return s.conn.Close() }

func (s *socket) send(messages []byte) error {
	if want := min(max(len(messages)+len(messages)/4, minSendBuffer), maxSendBuffer); want > s.sendBuffer {
		if err := s.conn.SetWriteBuffer(want); err != nil {
			return fmt.Errorf("make room for %d bytes: %w", want, err)
		}
		s.sendBuffer = want
	}
	var err error
	failed := s.raw.Control(func(fd uintptr) {
		err = unix.Sendto(int(fd), messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("send %d bytes to nf_tables: %w", len(messages), err)
	}
	return nil
}

func (s *socket) receive(wait bool) ([]byte, error) {
	if !wait {
		return s.receiveUntil(time.Time{})
	}
	datagram, err := s.receiveUntil(time.Now().Add(answerTimeout))
	if err == nil && datagram == nil {
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		return nil, fmt.Errorf("wait for nf_tables: %w", err)
	}
	return datagram, nil
}

// receiveUntil returns a datagram, or nil if none has come by then; the zero time does not wait at all.
func (s *socket) receiveUntil(deadline time.Time) ([]byte, error) {
	var n int
	var err error
	read := func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), s.datagram, 0)
		return !errors.Is(err, unix.EAGAIN)
	}
	failed := s.raw.Control(func(fd uintptr) { read(fd) })
	if failed == nil && errors.Is(err, unix.EAGAIN) {
		if deadline.IsZero() {
			return nil, nil
		}
		failed = errors.Join(s.conn.SetReadDeadline(deadline), s.raw.Read(read))
		if errors.Is(failed, os.ErrDeadlineExceeded) {
			return nil, nil
		}
	}
	if err = errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("receive from nf_tables: %w", err)
	}
	return s.datagram[:n], nil
}

// message is one of the kernel's, without its header.
type message struct {
	kind     uint16 // NLMSG_*, or that of nfnetlink
	flags    uint16
	sequence uint32
	sender   uint32 // id of the socket whose transaction it tells about
	body     []byte
}

// messages splits a datagram.
func messages(datagram []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(datagram) >= unix.NLMSG_HDRLEN {
			length := int(binary.NativeEndian.Uint32(datagram))
			if length < unix.NLMSG_HDRLEN || length > len(datagram) {
				return
			}
			m := message{
				kind:     binary.NativeEndian.Uint16(datagram[4:]),
				flags:    binary.NativeEndian.Uint16(datagram[6:]),
				sequence: binary.NativeEndian.Uint32(datagram[8:]),
				sender:   binary.NativeEndian.Uint32(datagram[12:]),
				body:     datagram[unix.NLMSG_HDRLEN:length],
			}
			if !yield(m) {
				return
			}
			datagram = datagram[min(align(length), len(datagram)):]
		}
	}
}

// errno returns the error that a message of kind NLMSG_ERROR or NLMSG_DONE carries; 0 says that all went well.
func (m message) errno() unix.Errno {
	if len(m.body) < 4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
}

// words returns what the kernel says about an error, if anything (NLMSGERR_ATTR_MSG).
func (m message) words() string {
	const fixed = 4 + unix.NLMSG_HDRLEN
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || len(m.body) < fixed {
		return ""
	}
	return text0(attributes(m.body[fixed:]).find(unix.NLMSGERR_ATTR_MSG))
}

// attributes are what the body of a message, or of an attribute, consists of.
type attributes []byte

// all returns kind and content of each.
func (a attributes) all() iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		rest := []byte(a)
		for len(rest) >= unix.NLA_HDRLEN {
			length := int(binary.NativeEndian.Uint16(rest))
			if length < unix.NLA_HDRLEN || length > len(rest) {
				return
			}
			kind := binary.NativeEndian.Uint16(rest[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, rest[unix.NLA_HDRLEN:length]) {
				return
			}
			rest = rest[min(align(length), len(rest)):]
		}
	}
}

// find returns the content of the first attribute of a kind, or nil.
func (a attributes) find(kind uint16) attributes {
	for k, content := range a.all() {
		if k == kind {
			return content
		}
	}
	return nil
}

// text0 returns a string that may end with a zero.
func text0(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}

// align rounds up to what messages and attributes begin at multiples of.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
