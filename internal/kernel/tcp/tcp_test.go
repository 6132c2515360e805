//go:build linux

package tcp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/kernel/tcp"
)

const within = 5 * time.Second // what is waited for takes microseconds

// world is a listener and an epoll set.
type world struct {
	*tcp.Poller
	listener int
	at       netip.AddrPort
}

const (
	tagListener = 1
	tagConn     = 7<<32 | 3 // both halves count
	tagWaker    = 2
)

func newWorld(t *testing.T, address string) *world {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{at: l.Addr().(*net.TCPAddr).AddrPort()}
	if w.listener, err = tcp.Take(l.(*net.TCPListener)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close(w.listener) })
	if w.Poller, err = tcp.OpenPoller(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if err := w.AddListener(w.listener, tagListener); err != nil {
		t.Fatal(err)
	}
	return w
}

// wait waits for news under a tag that says at least what.
func (w *world) wait(t *testing.T, tag uint64, what uint32) {
	t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		var events [8]tcp.Event
		n, err := w.Wait(events[:], 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for i := range events[:n] {
			if events[i].Tag() == tag && events[i].What()&what == what {
				return
			}
		}
	}
	t.Fatalf("no news %#x of %#x", what, tag)
}

// pair returns the descriptor of an accepted connection and its other end.
func (w *world) pair(t *testing.T) (int, *net.TCPConn) {
	t.Helper()
	c, err := net.Dial("tcp", w.at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w.wait(t, tagListener, tcp.Readable)
	fd, peer, err := tcp.Accept(w.listener)
	if err != nil {
		t.Fatal(err)
	}
	if want := c.LocalAddr().(*net.TCPAddr).AddrPort(); peer != want {
		t.Errorf("accepted from %v, want %v", peer, want)
	}
	if _, _, err := tcp.Accept(w.listener); !errors.Is(err, tcp.ErrWouldBlock) {
		t.Errorf("got %v, want that there are no more", err)
	}
	return fd, c.(*net.TCPConn)
}

func TestConversation(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			w := newWorld(t, address)
			fd, c := w.pair(t)
			if err := w.AddConn(fd, tagConn); err != nil {
				t.Fatal(err)
			}
			if local, err := tcp.Local(fd); local != w.at || err != nil {
				t.Errorf("the own address is %v, %v; want %v", local, err, w.at)
			}
			if peer, err := tcp.Peer(fd); peer != c.LocalAddr().(*net.TCPAddr).AddrPort() || err != nil {
				t.Errorf("the other address is %v, %v", peer, err)
			}
			b := make([]byte, 10)
			if _, err := tcp.Read(fd, b); !errors.Is(err, tcp.ErrWouldBlock) {
				t.Errorf("got %v, want nothing to read", err)
			}
			io.WriteString(c, "hello")
			w.wait(t, tagConn, tcp.Readable|tcp.Writable)
			for _, read := range []func(int, []byte) (int, error){tcp.Peek, tcp.Read} {
				if n, err := read(fd, b); string(b[:n]) != "hello" || err != nil {
					t.Errorf("got %q and %v", b[:n], err)
				}
			}
			if n, err := tcp.Write(fd, []byte("there")); n != 5 || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			if err := tcp.ShutdownWrite(fd); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(c); string(got) != "there" || err != nil {
				t.Errorf("got %q and %v", got, err)
			}
			c.CloseWrite()
			w.wait(t, tagConn, tcp.PeerDone)
			if n, err := tcp.Read(fd, b); n != 0 || err != nil {
				t.Errorf("got %d bytes and %v, want the end", n, err)
			}
			tcp.Close(fd)
		})
	}
}

func TestConnect(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		w := newWorld(t, address)
		fd, err := tcp.Connect(w.at)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.AddConn(fd, tagConn); err != nil {
			t.Fatal(err)
		}
		w.wait(t, tagConn, tcp.Writable)
		if err := tcp.Failure(fd); err != nil {
			t.Errorf("%s: got %v, want to be connected", address, err)
		}
		tcp.Close(fd)
	}
}

func TestConnectRefused(t *testing.T) {
	w := newWorld(t, "127.0.0.1:0")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	fd, err := tcp.Connect(l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close(fd)
	if err := w.AddConn(fd, tagConn); err != nil {
		t.Fatal(err)
	}
	w.wait(t, tagConn, tcp.Broken)
	if err := tcp.Failure(fd); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want to be refused", err)
	}
}

func TestReset(t *testing.T) {
	w := newWorld(t, "127.0.0.1:0")
	fd, c := w.pair(t)
	tcp.Reset(fd)
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// TestPipe moves bytes from one connection to another and to the end, in the kernel.
func TestPipe(t *testing.T) {
	w := newWorld(t, "127.0.0.1:0")
	from, source := w.pair(t)
	defer tcp.Close(from)
	to, sink := w.pair(t)
	p, err := tcp.OpenPipe(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Fill(from, 100); !errors.Is(err, tcp.ErrWouldBlock) {
		t.Errorf("got %v, want nothing to move", err)
	}
	if err := w.AddConn(from, tagConn); err != nil {
		t.Fatal(err)
	}
	io.WriteString(source, "hello")
	w.wait(t, tagConn, tcp.Readable)
	if n, err := p.Fill(from, 100); n != 5 || err != nil {
		t.Fatalf("filled %d, %v", n, err)
	}
	if n, err := p.Drain(to, 5); n != 5 || err != nil {
		t.Fatalf("drained %d, %v", n, err)
	}
	source.Close()
	w.wait(t, tagConn, tcp.PeerDone)
	if n, err := p.Fill(from, 100); n != 0 || err != nil {
		t.Errorf("filled %d, %v; want the end", n, err)
	}
	tcp.Close(to)
	if got, err := io.ReadAll(sink); string(got) != "hello" || err != nil {
		t.Errorf("got %q and %v", got, err)
	}
}

// TestInfo fills a connection of which the other end does not read: its window closes.
func TestInfo(t *testing.T) {
	w := newWorld(t, "127.0.0.1:0")
	fd, _ := w.pair(t)
	defer tcp.Close(fd)
	if i, err := tcp.GetInfo(fd); err != nil || i.Unacked != 0 || i.Unsent != 0 {
		t.Errorf("got %+v and %v, want nothing under way", i, err)
	}
	b := make([]byte, 1<<20)
	for err := error(nil); err == nil; {
		_, err = tcp.Write(fd, b)
	}
	for deadline := time.Now().Add(within); ; time.Sleep(time.Millisecond) { // nobody tells of an acknowledgement
		i, err := tcp.GetInfo(fd)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("got %+v and %v, want a closed window", i, err)
		}
		if i.Unacked == 0 && i.Unsent > 0 {
			break
		}
	}
}

// TestOptions wants a connection to have what its listener has.
func TestOptions(t *testing.T) {
	w := newWorld(t, "127.0.0.1:0")
	k := tcp.KeepAlive{Idle: 15 * time.Second, Interval: time.Second, Count: 3}
	err := errors.Join(tcp.SetNoDelay(w.listener), tcp.SetKeepAlive(w.listener, k), tcp.SetUserTimeout(w.listener, 1500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	fd, _ := w.pair(t)
	defer tcp.Close(fd)
	for name, option := range map[string][3]int{
		"TCP_NODELAY":      {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
		"TCP_KEEPINTVL":    {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 1},
		"TCP_KEEPCNT":      {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
		"TCP_USER_TIMEOUT": {syscall.IPPROTO_TCP, 18, 1500},
	} {
		if got, err := syscall.GetsockoptInt(fd, option[0], option[1]); got != option[2] || err != nil {
			t.Errorf("%s is %d, %v; want %d", name, got, err, option[2])
		}
	}
}

// TestWaker wakes from another goroutine, twice, and clears both at once.
func TestWaker(t *testing.T) {
	w := newWorld(t, "127.0.0.1:0")
	waker, err := tcp.OpenWaker()
	if err != nil {
		t.Fatal(err)
	}
	defer waker.Close()
	if err := w.AddWaker(waker, tagWaker); err != nil {
		t.Fatal(err)
	}
	go func() {
		waker.Wake()
		waker.Wake()
	}()
	w.wait(t, tagWaker, tcp.Readable)
	for deadline := time.Now().Add(within); ; {
		if err := waker.Clear(); err != nil {
			t.Fatal(err)
		}
		var events [1]tcp.Event
		if n, err := w.Briefly(events[:], 10*time.Millisecond); n == 0 && err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not sleep")
		}
	}
}
