//go:build !linux

package peer

import (
	"errors"
	"fmt"
)

var errTCP = fmt.Errorf("only Linux tells whose a TCP connection is; use a unix socket or a token: %w", errors.ErrUnsupported)
