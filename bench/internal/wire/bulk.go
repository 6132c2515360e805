package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// dropBytes is how much a client of bulk takes in one call.
const dropBytes = 1 << 20

// Bulk asks for so many bytes on all connections together, and drops them in the kernel, without a copy. It returns how long
// that took. do runs what opens sockets where they are to be.
func Bulk(ctx context.Context, do func(func() error) error, to netip.AddrPort, connections int, bytes int64) (time.Duration, error) {
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range connections {
		share := bytes / int64(connections)
		if i == 0 {
			share += bytes % int64(connections)
		}
		g.Go(func() error { return do(func() error { return bulk(ctx, to, share) }) })
	}
	err := g.Wait()
	return time.Since(began), err
}

func bulk(ctx context.Context, to netip.AddrPort, bytes int64) (err error) {
	fd, err := blocking(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := write(fd, request(askBulk, bytes)); err != nil {
		return err
	}
	for buf := make([]byte, dropBytes); bytes > 0; {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC) // tcp(7): the bytes are dropped, not copied
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0:
			return fmt.Errorf("%w: %d bytes are missing", errEnd, bytes)
		}
		bytes -= int64(n)
	}
	return nil
}
