package cluster

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// An answer to all that was sent proves that the end of sending passes through: without it the server would wait.
func TestForwarder(t *testing.T) {
	server := listen(t)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			c.Write(append([]byte("got "), b...))
			c.Close()
		}
	}()
	dead := listen(t)
	dead.Close()
	dial := new(net.Dialer).DialContext
	front := listen(t)
	f := &forwarder{listener: front, log: slog.New(slog.DiscardHandler),
		targets: []target{{dial, dead.Addr().String()}, {dial, server.Addr().String()}}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	for range 4 { // every target is the first choice twice
		if got := exchange(t, front.Addr().String(), "hello"); got != "got hello" {
			t.Errorf("answer %q", got)
		}
	}
	idle, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the forwarder does not end while a client is connected")
	}
}

func exchange(t *testing.T, address, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// fullOnce fails to accept once, like a process with too many open files.
type fullOnce struct {
	net.Listener
	failed bool
}

func (l *fullOnce) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, unix.EMFILE
	}
	return l.Listener.Accept()
}

func TestForwarderOutlivesFailedAccept(t *testing.T) {
	server := listen(t)
	go func() {
		c, err := server.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	front := &fullOnce{Listener: listen(t)}
	f := &forwarder{listener: front, log: slog.New(slog.DiscardHandler),
		targets: []target{{new(net.Dialer).DialContext, server.Addr().String()}}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	if got := exchange(t, front.Addr().String(), "hello"); got != "hello" {
		t.Errorf("answer %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
