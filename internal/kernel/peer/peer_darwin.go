package peer

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// credentials asks for those of the process that connected.
func credentials(fd int) (uint32, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return cred.Uid, nil
}

func socketUser(local, remote netip.AddrPort) (uint32, error) { return 0, errTCP }
