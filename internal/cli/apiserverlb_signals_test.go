//go:build linux

package cli_test

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/nettest"
)

// systemd is where a process tells systemd what becomes of it.
func systemd(t *testing.T) *nettest.Journal {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	said := &nettest.Journal{}
	go func() {
		for b := make([]byte, 1<<12); ; {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			words := strings.Fields(string(b[:n]))
			_, _ = said.Write([]byte(words[0] + "\n"))
		}
	}()
	return said
}

// heed waits until systemd was told all of this, in this order.
func (s *lbStage) heed(p *lbProcess, said *nettest.Journal, want string) {
	s.t.Helper()
	s.await("systemd is told "+want+"; it was told "+said.String(), p, func() bool { return strings.Join(strings.Fields(said.String()), " ") == want })
}

// signal sends one to a process.
func (p *lbProcess) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// TestAPIServerLBTellsSystemd has a balancer tell systemd how it begins, reads its file again, and ends.
func TestAPIServerLBTellsSystemd(t *testing.T) {
	s, said := newLBStage(t), systemd(t)
	s.write(s.servers...)
	p := s.start()
	s.heed(p, said, "READY=1")
	p.signal(t, syscall.SIGHUP)
	s.heed(p, said, "READY=1 RELOADING=1 READY=1")
	p.signal(t, syscall.SIGTERM)
	if err := <-p.ended; err != nil {
		t.Errorf("%v\n%s", err, p.said)
	}
	s.heed(p, said, "READY=1 RELOADING=1 READY=1 STOPPING=1")
}

// TestAPIServerLBEndsWhileStarting has a process that is to take over told to read its file again and to end while it still
// looks for a backend: it must say nothing of being ready, and the one before must go on.
func TestAPIServerLBEndsWhileStarting(t *testing.T) {
	s := newLBStage(t)
	s.write(s.servers[0])
	first := s.start()
	s.await("it is ready", first, s.ready)
	s.await("it can be taken over from", first, s.stands)
	said := systemd(t)
	good, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	looking := strings.Replace(string(good), s.servers[0].Listener.Addr().String(), "nowhere.invalid:6443", 1)
	other := &lbStage{t: t, file: s.file + ".new", at: s.at}
	if err := os.WriteFile(other.file, []byte(looking), 0o600); err != nil {
		t.Fatal(err)
	}
	second := other.start()
	s.await("the second one asks for the listeners", second, func() bool { return strings.Contains(second.said.String(), "takes over") })
	second.signal(t, syscall.SIGHUP)
	second.signal(t, syscall.SIGTERM)
	if err := <-second.ended; err != nil {
		t.Errorf("%v\n%s", err, second.said)
	}
	if told := said.String(); strings.Contains(told, "READY") || strings.Contains(told, "RELOADING") {
		t.Errorf("systemd was told %q", told)
	}
	select {
	case err := <-first.ended:
		t.Fatalf("the first one has ended: %v\n%s", err, first.said)
	default:
	}
	if strings.Contains(first.said.String(), "has taken over") {
		t.Errorf("the first one let go:\n%s", first.said)
	}
	if name, err := s.ask(); name != "one" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	third := s.succeed(first)
	third.stop()
	if err := <-third.ended; err != nil {
		t.Error(err)
	}
}

// stands says whether the socket is there by which another process takes over.
func (s *lbStage) stands() bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(s.file), "socket"))
	return err == nil
}

// TestAPIServerLBEndsTwice has a balancer end while a client will not, and be told so once more: it ends at once.
func TestAPIServerLBEndsTwice(t *testing.T) {
	s := newLBStage(t)
	s.write(s.servers...)
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file, []byte(strings.Replace(string(text), "drain: {timeout: 5s}", "drain: {timeout: 1h}", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.start()
	s.await("it is ready", p, s.ready)
	conn, err := tls.Dial("tcp", s.at, s.client.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\n")); err != nil { // the rest is to come: not a connection to close soon
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGTERM)
	s.await("it is ending", p, func() bool { return strings.Contains(p.said.String(), "ending") })
	p.signal(t, syscall.SIGHUP) // has nothing to say any more, and must not end it
	p.signal(t, syscall.SIGTERM)
	select {
	case err := <-p.ended:
		if err != nil || !strings.Contains(p.said.String(), "ends at once") {
			t.Errorf("%v\n%s", err, p.said)
		}
	case <-time.After(4 * time.Second): // idle ones are closed after five
		t.Errorf("it goes on:\n%s", p.said)
	}
}

// TestAPIServerLBReadsNoPipe puts what blocks or never ends in the place of files that a balancer reads: it says so, goes on as
// before, and still obeys.
func TestAPIServerLBReadsNoPipe(t *testing.T) {
	s := newLBStage(t)
	s.write(s.servers[0])
	p := s.start()
	s.await("it is ready", p, s.ready)
	authority := filepath.Join(filepath.Dir(s.file), "ca.crt")
	pipe := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	zeros := func(path string) error { return os.Symlink("/dev/zero", path) }
	for _, put := range []struct {
		path string
		it   func(path string) error
		want string
	}{
		{authority, pipe, "health.caFile: read " + authority + ": it is a pipe, not a file"},
		{authority, zeros, "health.caFile: read " + authority + ": it is a device, not a file"},
		{s.file, zeros, s.file + ": it is a device, not a file"},
		{s.file, pipe, s.file + ": it is a pipe, not a file"},
	} {
		if err := errors.Join(os.Remove(put.path), put.it(put.path)); err != nil {
			t.Fatal(err)
		}
		if put.path != s.file { // which is looked at without being told
			p.signal(t, syscall.SIGHUP)
		}
		s.await("it says "+put.want, p, func() bool { return strings.Contains(p.said.String(), put.want) })
		if name, err := s.ask(); name != "one" || err != nil {
			t.Errorf("%s: %q, %v", put.want, name, err)
		}
	}
	p.signal(t, syscall.SIGHUP)
	p.signal(t, syscall.SIGTERM)
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("%v\n%s", err, p.said)
		}
	case <-time.After(15 * time.Second):
		t.Fatalf("it does not end:\n%s", p.said)
	}
}
