//go:build linux

package loop_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
)

// flow is a stream of bytes that a seed and a length make: the same at both ends, and too long to keep. It repeats itself
// after a number of bytes that no buffer has.
type flow struct {
	text []byte
	at   int
	left int64
}

const period = 65521 // a prime

func newFlow(seed byte, size int64) *flow {
	f := &flow{text: make([]byte, min(period, size)), left: size}
	rand.NewChaCha8([32]byte{seed}).Read(f.text)
	return f
}

// Read implements io.Reader.
func (f *flow) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(int64(len(b)), f.left)], f.text[f.at:])
	f.at = (f.at + n) % len(f.text)
	f.left -= int64(n)
	return n, nil
}

// sum is what identifies a flow.
type sum struct {
	size int64
	crc  uint32
}

func (s sum) String() string { return fmt.Sprintf("%d bytes, %08x", s.size, s.crc) }

// sumOf reads all.
func sumOf(r io.Reader) (s sum, err error) {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli)) // which processors have an instruction for
	s.size, err = io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 128<<10))
	return sum{s.size, h.Sum32()}, err
}

func sumOfFlow(seed byte, size int64) sum {
	s, _ := sumOf(newFlow(seed, size))
	return s
}

// send writes a flow and says that this was all.
func send(c *net.TCPConn, seed byte, size int64) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, newFlow(seed, size), make([]byte, 64<<10)); err != nil {
		return err
	}
	return c.CloseWrite()
}

// heard is what one side got.
type heard struct {
	sum
	err error
}

// both sends one flow and reads the other at the same time.
func both(c *net.TCPConn, seed byte, size int64) heard {
	sent := make(chan error, 1)
	go func() { sent <- send(c, seed, size) }()
	s, err := sumOf(c)
	return heard{s, errors.Join(err, <-sent)}
}

// wantFlow wants one side to have got exactly a flow.
func wantFlow(t testing.TB, who string, got heard, seed byte, size int64) {
	t.Helper()
	if want := sumOfFlow(seed, size); got.err != nil || got.sum != want {
		t.Errorf("%s: got %v and %v, want %v", who, got.sum, got.err, want)
	}
}

// echoes answers what it hears until the client has said all.
func echoes(c *net.TCPConn) { io.Copy(struct{ io.Writer }{c}, c) }

func says(text string) func(*net.TCPConn) {
	return func(c *net.TCPConn) { io.WriteString(c, text) }
}

// keeps reads until the client ends.
func keeps(c *net.TCPConn) { io.Copy(io.Discard, c) }

// exchange says a word to an echo and hears it.
func exchange(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if err := tryExchange(c, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func tryExchange(c net.Conn, text []byte) error {
	if _, err := c.Write(text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return fmt.Errorf("got %q, want %q", got, text)
	}
	return nil
}

// abort resets a connection.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// wantReset wants the peer to have reset a connection, not to have closed it in order.
func wantReset(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// wantEnd wants a connection to end in order without another byte.
func wantEnd(t testing.TB, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("got %q and %v, want an orderly end", b, err)
	}
}

// readError reads until a connection ends.
func readError(c net.Conn) error {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	return err
}
