//go:build !linux && !darwin

package peer

import (
	"errors"
	"fmt"
	"net/netip"
)

var errUnix = fmt.Errorf("this system does not tell the user of a unix socket: %w", errors.ErrUnsupported)

func credentials(fd int) (uint32, error) { return 0, errUnix }

func socketUser(local, remote netip.AddrPort) (uint32, error) { return 0, errTCP }
