package kernel

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// deletion gathers flows to delete and counts.
type deletion struct {
	conn         *netlink.Conn
	waiting      []netlink.Message
	done, failed int
	err          error // of the last that failed
}

func (d *deletion) add(e entry) error {
	d.waiting = append(d.waiting, conntrackRequest(ctDelete, netlink.Request|netlink.Acknowledge, e.family, e.name()))
	if len(d.waiting) < deleteWindow {
		return nil
	}
	return d.send()
}

// send deletes what waits. The kernel answers each deletion.
func (d *deletion) send() error {
	if len(d.waiting) == 0 {
		return nil
	}
	sent, err := d.conn.SendMessages(d.waiting)
	d.waiting = d.waiting[:0]
	if err != nil {
		return err
	}
	for range sent {
		if err := d.receive(); err != nil {
			return err
		}
	}
	return nil
}

// receive takes one answer. It returns an error if there is none.
func (d *deletion) receive() error {
	_, err := d.conn.Receive()
	var refused syscall.Errno
	switch {
	case err == nil:
		d.done++
	case errors.Is(err, unix.ENOENT): // it has ended
	case errors.Is(err, unix.ENOBUFS) || !errors.As(err, &refused):
		return err
	default:
		d.failed++
		d.err = err
	}
	return nil
}

func (d *deletion) failure() error {
	if d.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d flows stay: %w", d.failed, d.err)
}
