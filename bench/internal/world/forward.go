package world

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// forwarder joins what connects to a listener to an address of this machine.
type forwarder struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns map[net.Conn]bool // nil once closed
}

func newForwarder(l net.Listener, to string) *forwarder {
	return &forwarder{listener: l, to: to, conns: map[net.Conn]bool{}}
}

// run serves until close or ctx ends.
func (f *forwarder) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = f.close() })
	defer stop()
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		go f.join(ctx, c)
	}
}

func (f *forwarder) join(ctx context.Context, c net.Conn) {
	defer c.Close()
	var d net.Dialer
	up, err := d.DialContext(ctx, "tcp", f.to)
	if err != nil {
		return // the client sees its connection end, and tries again
	}
	defer up.Close()
	if !f.keep(c, up) {
		return
	}
	defer f.drop(c, up)
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{c, up}, {up, c}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1]) // an error ends the connection, and that is all there is to do
			done <- struct{}{}
		}()
	}
	<-done
}

// keep remembers connections, so that close ends them. It refuses after close.
func (f *forwarder) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		return false
	}
	for _, c := range conns {
		f.conns[c] = true
	}
	return true
}

func (f *forwarder) drop(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}

// close ends the listener and all connections. Calling it again does nothing.
func (f *forwarder) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for c := range f.conns {
		errs = append(errs, c.Close())
	}
	f.conns = nil
	if err := f.listener.Close(); !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
