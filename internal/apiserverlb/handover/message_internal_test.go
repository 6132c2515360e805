//go:build linux

package handover

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair is a connection within the process.
func pair(t *testing.T) (a, b conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]conn, len(fds))
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		c, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		ends[i] = conn{c.(*net.UnixConn)}
		t.Cleanup(func() { _ = c.Close() })
	}
	return ends[0], ends[1]
}

// TestRefusedAtTheSameTime: a predecessor gives up waiting just when Done is called. That it was closed with the message
// unread must not hide that it refused, or both would go on.
func TestRefusedAtTheSameTime(t *testing.T) {
	successor, predecessor := pair(t)
	if err := errors.Join(
		predecessor.send(message{Kind: kindRefused, Reason: "too late"}, nil),
		successor.send(message{Kind: kindDone}, nil), predecessor.unix.Close(),
	); err != nil {
		t.Fatal(err)
	}
	_, _, err := successor.receive(kindTaken, time.Now().Add(answerTime))
	var refused *refusedError
	if !errors.As(err, &refused) || refused.reason != "too late" {
		t.Errorf("got %v", err)
	}
}

// TestSeveralDescriptors in one message are closed, and refused.
func TestSeveralDescriptors(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.write([]byte(`{"version":1,"kind":"listener"}`), syscall.UnixRights(int(w.Fd()), int(w.Fd()))); err != nil {
		t.Fatal(err)
	}
	if _, f, err := b.receive(kindListener, time.Now().Add(answerTime)); err == nil || f != nil {
		t.Errorf("got %v, %v", f, err)
	}
	_ = w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil { // no writer is left
		t.Errorf("got %d, %v", n, err)
	}
}

// TestStrayDescriptor: one that comes with a message that has none is closed, and not kept open until it is collected.
func TestStrayDescriptor(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.write([]byte(`{"version":1,"kind":"take"}`), syscall.UnixRights(int(w.Fd()))), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, f, err := b.receive(kindTake, time.Now().Add(answerTime)); err != nil || f != nil {
		t.Errorf("got %v, %v", f, err)
	}
	if err := r.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // no writer is left
		t.Errorf("got %v", err)
	}
}
