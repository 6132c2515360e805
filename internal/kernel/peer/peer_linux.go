package peer

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// credentials asks for those of the process that connected.
func credentials(fd int) (uint32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return cred.Uid, nil
}

// States of a TCP socket (include/net/tcp_states.h).
const (
	established = 1
	finWait1    = 4
	finWait2    = 5
	closeWait   = 8
)

// socket is what the kernel tells of a TCP socket.
type socket struct {
	local, remote netip.AddrPort
	state         uint8
	uid           uint32
	inode         uint32 // 0 once no process holds the socket
}

// owner returns who made the socket. The kernel says 0, which is root, for sockets that wait for their end without a
// process (inet_twsk_diag_fill), and a look-up for a connection that is gone may find a listener on its port or someone
// who has only begun to connect from it: none of these is an owner.
func (s socket) owner(local, remote netip.AddrPort) (uint32, error) {
	switch s.state {
	case established, finWait1, finWait2, closeWait:
		if s.inode != 0 && s.local == local && s.remote == remote {
			return s.uid, nil
		}
	}
	return 0, ErrGone
}

// socketUser returns who made the socket with these addresses. Where the kernel has no sock_diag for TCP (a module that
// is not there, or a sandbox) its table in /proc tells. ENOENT is both "no such socket" and "no such module".
func socketUser(local, remote netip.AddrPort) (uint32, error) {
	s, err := diagnose(local, remote)
	if err == nil {
		return s.owner(local, remote)
	}
	s, errProc := readTable(local, remote)
	if errProc == nil {
		return s.owner(local, remote)
	}
	if errors.Is(errProc, ErrGone) {
		return 0, ErrGone
	}
	return 0, errors.Join(err, errProc)
}
