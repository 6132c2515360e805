package cluster

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"varco.dev/lab/internal/controlplane"
)

// target is an API server as the forwarder reaches it.
type target struct {
	dial    controlplane.Dial
	address string
}

// forwarder carries TCP connections from the host to the API servers, each to the next one that answers.
type forwarder struct {
	listener net.Listener
	targets  []target
	next     atomic.Uint32
	log      *slog.Logger
}

// acceptPause is the time between two tries to accept clients, if the first failed.
const acceptPause = 100 * time.Millisecond

// Run serves until ctx ends; it closes the listener and all connections then.
func (f *forwarder) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { f.listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := f.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			// Such as too many open files: it passes, and without the forwarder nobody reaches the lab.
			f.log.Warn("accept a client of the API server", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		serving.Go(func() {
			defer conn.Close()
			if err := f.serve(ctx, conn); err != nil {
				f.log.Debug("no API server for a client", "err", err)
			}
		})
	}
}

func (f *forwarder) serve(ctx context.Context, client net.Conn) error {
	server, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { carry(client, server) })
	carry(server, client)
	back.Wait()
	return nil
}

// carry copies until the source ends, and passes on that end.
func carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

func (f *forwarder) connect(ctx context.Context) (net.Conn, error) {
	first := f.next.Add(1)
	var errs []error
	for i := range f.targets {
		t := f.targets[(int(first)+i)%len(f.targets)]
		conn, err := t.dial(ctx, "tcp", t.address)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
