package peer

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	diagTimeout = time.Second // the kernel answers in microseconds

	requestSize = 56 // struct inet_diag_req_v2
	answerSize  = 72 // struct inet_diag_msg
	idSize      = 48 // struct inet_diag_sockid, in both
	noCookie    = 0xffffffff
)

// diagnose asks for one socket by its addresses (NETLINK_SOCK_DIAG, sock_diag(7)). That needs no privilege.
func diagnose(local, remote netip.AddrPort) (socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return socket{}, fmt.Errorf("opening sock_diag: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(diagTimeout)); err != nil {
		return socket{}, fmt.Errorf("opening sock_diag: %w", err)
	}
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   diagRequest(local, remote),
	})
	if err != nil {
		return socket{}, fmt.Errorf("asking sock_diag for a socket: %w", err)
	}
	if len(answers) != 1 {
		return socket{}, fmt.Errorf("asking sock_diag for a socket: %d answers", len(answers))
	}
	return diagAnswer(answers[0].Data)
}

// diagRequest is a struct inet_diag_req_v2 (linux/inet_diag.h): ports and addresses in network order, the rest in ours.
func diagRequest(local, remote netip.AddrPort) []byte {
	b := make([]byte, requestSize)
	b[0], b[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if local.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // in any state
	id := b[8:]
	binary.BigEndian.PutUint16(id[0:], local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(id[40:], noCookie)
	binary.NativeEndian.PutUint32(id[44:], noCookie)
	return b
}

// diagAnswer reads a struct inet_diag_msg.
func diagAnswer(b []byte) (socket, error) {
	if len(b) < answerSize {
		return socket{}, fmt.Errorf("reading sock_diag's answer: %d bytes, want %d", len(b), answerSize)
	}
	id, rest := b[4:4+idSize], b[4+idSize:]
	return socket{
		local:  diagAddr(b[0], id[4:20], id[0:2]),
		remote: diagAddr(b[0], id[20:36], id[2:4]),
		state:  b[1],
		uid:    binary.NativeEndian.Uint32(rest[12:]),
		inode:  binary.NativeEndian.Uint32(rest[16:]),
	}, nil
}

func diagAddr(family byte, addr, port []byte) netip.AddrPort {
	if family == unix.AF_INET {
		addr = addr[:4]
	}
	a, _ := netip.AddrFromSlice(addr) // 4 or 16 bytes
	return plain(netip.AddrPortFrom(a, binary.BigEndian.Uint16(port)))
}
