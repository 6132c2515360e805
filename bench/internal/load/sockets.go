package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// opening is how many WebSockets are opened at a time.
const opening = 16

// Sockets are WebSockets that are open at the same time, and idle.
type Sockets struct{ conns []net.Conn }

// OpenSockets asks for WebSockets at path, each on a connection that dial makes. Close ends them.
func OpenSockets(ctx context.Context, dial func(context.Context) (net.Conn, error), path string, count int) (*Sockets, error) {
	s := &Sockets{conns: make([]net.Conn, count)}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(opening)
	for i := range s.conns {
		g.Go(func() (err error) {
			s.conns[i], err = openSocket(ctx, dial, path)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(fmt.Errorf("open WebSocket: %w", err), s.Close())
	}
	return s, nil
}

func openSocket(ctx context.Context, dial func(context.Context) (net.Conn, error), path string) (net.Conn, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := upgrade(c, path); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func upgrade(c net.Conn, path string) error {
	if err := c.SetDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, c.RemoteAddr()); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 1<<10), nil) // nothing follows the answer
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300)) // what there is of it
		return fmt.Errorf("%w: %s: %s", errOdd, res.Status, text)
	}
	return c.SetDeadline(time.Time{})
}

// Echo sends a byte on each and waits until all of them have come back: none has ended, and both ways are open.
func (s *Sockets) Echo() error {
	for _, c := range s.conns {
		if err := c.SetDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		if _, err := c.Write([]byte{'x'}); err != nil {
			return fmt.Errorf("write to WebSocket: %w", err)
		}
	}
	for _, c := range s.conns {
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != 'x' {
			return fmt.Errorf("read %q from WebSocket: %w", b, err)
		}
	}
	return nil
}

// Close ends all of them.
func (s *Sockets) Close() error {
	var errs []error
	for _, c := range s.conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
