package httpproxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"varco.dev/internal/httpproxy"
)

// scripted is a connection whose reads bring what a test says, each at most so much.
type scripted struct {
	net.Conn
	text  []byte
	most  int
	reads int
	end   error
}

func (s *scripted) Read(p []byte) (int, error) {
	s.reads++
	n := copy(p[:min(len(p), s.most)], s.text)
	s.text = s.text[n:]
	if n == 0 {
		return 0, s.end
	}
	return n, nil
}

func buffered(t *testing.T, c net.Conn) *httpproxy.BufferedConn {
	t.Helper()
	conn, err := httpproxy.BufferDial(func(context.Context, string, string) (net.Conn, error) { return c, nil })(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*httpproxy.BufferedConn)
}

// TestBufferedConn wants the same bytes and the same end, with fewer reads where there is much to read.
func TestBufferedConn(t *testing.T) {
	text := make([]byte, 1<<20)
	io.ReadFull(numbers{}, text)
	end := errors.New("the end")
	for _, c := range []struct{ asked, most, reads int }{
		{16 << 10, 1 << 20, 1<<20/(64<<10) + 3},
		{1, 1 << 20, 1<<20/(64<<10) + 3},
		{64 << 10, 1 << 20, 17},
		{16 << 10, 1000, 1 << 20 / 1000 * 2},
	} {
		below := &scripted{text: text, most: c.most, end: end}
		conn := buffered(t, below)
		var got []byte
		buf := make([]byte, c.asked)
		for {
			had := conn.Buffered()
			reads := below.reads
			n, err := conn.Read(buf)
			if had > 0 && (below.reads != reads || n != min(had, len(buf))) {
				t.Fatalf("read %d, in %d reads below, when %d were at hand", n, below.reads-reads, had)
			}
			got = append(got, buf[:n]...)
			if err != nil {
				if err != end {
					t.Error(err)
				}
				break
			}
		}
		if !bytes.Equal(got, text) || below.reads > c.reads {
			t.Errorf("%d at a time: got %d bytes in %d reads, want %d in %d", c.asked, len(got), below.reads, len(text), c.reads)
		}
	}
}

// TestBufferedConnHalfCloses wants the end of one direction to be passed on, or to be told that it cannot be.
func TestBufferedConnHalfCloses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	below, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := buffered(t, below)
	defer conn.Close()
	if err := conn.CloseWrite(); err != nil {
		t.Error(err)
	}
	there, _ := l.Accept()
	if got, err := io.ReadAll(there); len(got) > 0 || err != nil {
		t.Errorf("got %q and %v", got, err)
	}
	there.Close()
	if err := buffered(t, &scripted{}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// TestWritten wants the bytes that have left to be counted, and no others.
func TestWritten(t *testing.T) {
	near, far := net.Pipe()
	conn := buffered(t, near)
	go func() {
		_, _ = io.ReadFull(far, make([]byte, 3))
		far.Close()
	}()
	if n := conn.Written(); n != 0 {
		t.Errorf("%d bytes before the first", n)
	}
	if n, err := conn.Write([]byte("hello")); n != 3 || err == nil {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
	if n := conn.Written(); n != 3 {
		t.Errorf("%d bytes were written, want 3", n)
	}
}
