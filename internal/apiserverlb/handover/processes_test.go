//go:build linux

package handover_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// child is a process of the test's binary.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  *bufio.Reader
	stderr bytes.Buffer
}

func start(t *testing.T, role string, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command("/proc/self/exe", args...)}
	c.cmd.Env = append(os.Environ(), childRole+"="+role)
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewReader(out)
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// says waits for a line of the process.
func (c *child) says(want string) {
	c.t.Helper()
	if got, err := c.lines.ReadString('\n'); strings.TrimSpace(got) != want {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait() // then stderr is whole
		c.t.Fatalf("the process says %q (%v), want %q: %s", got, err, want, &c.stderr)
	}
}

func (c *child) pid() string { return strconv.Itoa(c.cmd.Process.Pid) }

// ask connects and returns the PID that it is told.
func ask(address string) (pid string, err error) {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return "", err
	}
	return pidOf(c)
}

func pidOf(c net.Conn) (string, error) {
	tcp := c.(*net.TCPConn)
	err := errors.Join(c.SetDeadline(time.Now().Add(10*time.Second)), tcp.CloseWrite())
	text, readErr := io.ReadAll(c)
	if err = errors.Join(err, readErr, c.Close()); err == nil && len(text) == 0 {
		err = errors.New("closed without an answer")
	}
	return strings.TrimSpace(string(text)), err
}

// freeAddress is one of loopback at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// socketPath is in a folder that is this user's alone.
func socketPath(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "s")
}

// load is a number of clients that connect again and again.
type load struct {
	stop   atomic.Bool
	wg     sync.WaitGroup
	mu     sync.Mutex
	failed []error
	asked  map[string]int // PID -> answers
}

func startLoad(t *testing.T, address string) *load {
	t.Helper()
	const clients = 4
	l := &load{asked: map[string]int{}}
	for range clients {
		l.wg.Go(func() {
			for !l.stop.Load() {
				pid, err := ask(address)
				l.mu.Lock()
				if l.asked[pid]++; err != nil {
					l.failed = append(l.failed, err)
				}
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop.Store(true)
	l.wg.Wait()
}

// TestUnderLoad has one process after the other take over while clients connect all the time. None of them fails.
func TestUnderLoad(t *testing.T) {
	const times = 10
	path, address := socketPath(t), freeAddress(t)
	old := start(t, "server", path, address)
	old.says("serves")
	first := old.pid()
	session := open(t, address, first)
	clients := startLoad(t, address)
	for range times {
		next := start(t, "server", path, address)
		next.says("serves")
		old.says("succeeded")
		// The predecessor accepts no longer: whoever connects now gets the successor.
		if got, err := ask(address); err != nil || got != next.pid() {
			t.Fatalf("got process %s, %v, want %s", got, err, next.pid())
		}
		if old.pid() != first {
			if err := old.cmd.Wait(); err != nil {
				t.Fatalf("%v: %s", err, &old.stderr)
			}
		}
		old = next
	}
	clients.end()
	total := 0
	for _, n := range clients.asked {
		total += n
	}
	t.Logf("%d connections to %d processes, %d failed", total, len(clients.asked), len(clients.failed))
	if len(clients.failed) > 0 || len(clients.asked) < times || total < 10*times {
		t.Errorf("%d of %d connections failed, to %d processes: %v", len(clients.failed), total, len(clients.asked), clients.failed)
	}
	session.echo(t)
}

// session is a connection that lives on while processes come and go.
type session struct {
	net.Conn
	in *bufio.Reader
}

func open(t *testing.T, address, pid string) *session {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{c, bufio.NewReader(c)}
	t.Cleanup(func() { _ = c.Close() })
	if got, err := s.in.ReadString('\n'); err != nil || strings.TrimSpace(got) != pid {
		t.Fatalf("got process %q, %v, want %s", got, err, pid)
	}
	s.echo(t)
	return s
}

func (s *session) echo(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(s, "hello"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.in.ReadString('\n'); err != nil || got != "hello\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// TestSuccessorDies: the predecessor goes on, and the next successor succeeds.
func TestSuccessorDies(t *testing.T) {
	path, address := socketPath(t), freeAddress(t)
	old := start(t, "server", path, address)
	old.says("serves")
	clients := startLoad(t, address)
	for range 3 {
		dead := start(t, "dies", path)
		if err := dead.cmd.Wait(); err == nil || !strings.Contains(dead.stderr.String(), "it dies here") {
			t.Fatalf("got %v: %s", err, &dead.stderr)
		}
		if got, err := ask(address); err != nil || got != old.pid() {
			t.Fatalf("got process %s, %v, want %s", got, err, old.pid())
		}
	}
	next := start(t, "server", path, address)
	next.says("serves")
	old.says("succeeded")
	clients.end()
	if len(clients.failed) > 0 {
		t.Errorf("%d connections failed: %v", len(clients.failed), clients.failed[0])
	}
}

// TestPredecessorWasKilled: its socket is still there, and nobody is behind it.
func TestPredecessorWasKilled(t *testing.T) {
	path, address := socketPath(t), freeAddress(t)
	old := start(t, "server", path, address)
	old.says("serves")
	if err := old.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = old.cmd.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		next := start(t, "server", path, address)
		next.says("serves")
		if got, err := ask(address); err != nil || got != next.pid() {
			t.Fatalf("got process %s, %v, want %s", got, err, next.pid())
		}
	}
}

// TestActivation gives a process sockets as systemd does.
func TestActivation(t *testing.T) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), childRole+"=activated", "LISTEN_FDS=2", "LISTEN_FDNAMES=local:")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	var addresses []netip.AddrPort
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		c.ExtraFiles = append(c.ExtraFiles, f)
		addresses = append(addresses, l.Addr().(*net.TCPAddr).AddrPort())
		_ = l.Close()
		t.Cleanup(func() { _ = f.Close() })
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	for i, name := range []string{"local", "LISTEN_FD_4"} {
		want := fmt.Sprintf("%s at %v", name, addresses[i])
		if got, err := ask(addresses[i].String()); err != nil || got != want {
			t.Errorf("got %q, %v, want %q: %s", got, err, want, &stderr)
		}
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v: %s", err, &stderr)
	}
}

// TestActivationOfAnotherKind: a socket that is no TCP listener is an error that names it.
func TestActivationOfAnotherKind(t *testing.T) {
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	f, err := udp.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), childRole+"=activated", "LISTEN_FDS=1", "LISTEN_FDNAMES=datagrams")
	c.ExtraFiles = []*os.File{f}
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "socket datagrams of systemd") {
		t.Errorf("got %v: %s", err, out)
	}
}
