package wire

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Idle are connections that are open at the same time, and do nothing.
type Idle struct{ fds []int }

// OpenIdle opens connections, and has each answered once. Close ends them.
func OpenIdle(to netip.AddrPort, count int) (*Idle, error) {
	i := &Idle{}
	for len(i.fds) < count {
		fd, err := blocking(to)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connection %d: %w", len(i.fds)+1, err), i.Close())
		}
		i.fds = append(i.fds, fd)
		if err := exchange(fd); err != nil {
			return nil, errors.Join(fmt.Errorf("connection %d: %w", len(i.fds), err), i.Close())
		}
	}
	return i, nil
}

func exchange(fd int) error {
	if err := write(fd, request(askPing, 0)); err != nil {
		return err
	}
	return readAnswer(fd)
}

// Ask has every connection answered again: none has ended.
func (i *Idle) Ask() error {
	for n, fd := range i.fds {
		if err := exchange(fd); err != nil {
			return fmt.Errorf("connection %d of %d: %w", n+1, len(i.fds), err)
		}
	}
	return nil
}

// Close ends all of them.
func (i *Idle) Close() error {
	var errs []error
	for _, fd := range i.fds {
		errs = append(errs, unix.Close(fd))
	}
	i.fds = nil
	return errors.Join(errs...)
}
