package kubectlproxy_test

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func testFirstLine(t *testing.T) {
	s := prepare(t)
	socket := filepath.Join(t.TempDir(), "original.sock")
	for _, args := range [][]string{{"--port=0"}, {"--port=0", "--address=[::1]"}, {"--unix-socket=" + socket}} {
		p := startProcess(t, s.path, args...)
		if got := p.server(t).send(t, get("/version")).String(); got != "200 GET /version" {
			t.Errorf("kubectl proxy %v: %q", args, got)
		}
		p.end(os.Kill)
	}
	for _, c := range []struct{ address, socket, want string }{
		{"127.0.0.1", "", "127.0.0.1:"},
		{"[::1]", "", "[::1]:"},
		{"::1", "", "[::1]:"},
		{"", filepath.Join(t.TempDir(), "ours.sock"), "/"},
	} {
		s := prepare(t)
		s.config.Address, s.config.UnixSocket = c.address, c.socket
		s.startOurs()
		if !strings.HasPrefix(s.ours.address, c.want) || c.socket != "" && s.ours.address != c.socket {
			t.Errorf("serves on %q, want %q", s.ours.address, c.want+c.socket)
		}
		if got := s.ours.send(t, get("/version")).String(); got != "200 GET /version" {
			t.Errorf("on %s: %q", s.ours.address, got)
		}
	}
}

func testAddressWithoutBrackets(t *testing.T) {
	s := prepare(t)
	p := startProcess(t, s.path, "--port=0", "--address=::1")
	if said := p.said.String(); p.first != "" || !strings.Contains(said, "too many colons in address") {
		t.Errorf("kubectl proxy --address=::1 says %q and %q: has it changed?", p.first, said)
	}
	s.config.Address = "::1"
	s.startOurs()
	if !strings.HasPrefix(s.ours.address, "[::1]:") {
		t.Errorf("serves on %q", s.ours.address)
	}
}

func testPortTaken(t *testing.T) {
	s := prepare(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s.config.Port = taken.Addr().(*net.TCPAddr).Port
	p := startProcess(t, s.path, fmt.Sprintf("--port=%d", s.config.Port))
	if said := p.said.String(); p.first != "" || !strings.Contains(said, "address already in use") {
		t.Errorf("kubectl proxy says %q and %q: has it changed?", p.first, said)
	}
	if err := s.runs(); err == nil || !strings.Contains(err.Error(), "address already in use: choose another with --port") {
		t.Errorf("error %v, want one that names --port", err)
	}
}

func testPortAndSocket(t *testing.T) {
	// That we answer the same is in internal/cli, which reads the flags.
	p := startProcess(t, prepare(t).path, "--port=8002", "--unix-socket=/nowhere/at/all")
	if said := p.said.String(); !strings.Contains(said, "cannot set --unix-socket and --port at the same time") {
		t.Errorf("kubectl proxy says %q: has it changed?", said)
	}
	contains(t, "../cli/kubectlproxy_test.go", "cannot set --unix-socket and --port at the same time")
}

func testSocket(t *testing.T) {
	s, dir := prepare(t), t.TempDir()
	theirs, ours := filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
	for _, path := range []string{theirs, ours} {
		leaveSocket(t, path)
	}
	p := startProcess(t, s.path, "--unix-socket="+theirs)
	s.config.UnixSocket = ours
	s.startOurs()
	for _, path := range []string{theirs, ours} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().String(); got != "Srwx------" {
			t.Errorf("%s has the mode %s", path, got)
		}
		if got := (server{"unix", path}).send(t, get("/version")).String(); got != "200 GET /version" {
			t.Errorf("through %s: %q", path, got)
		}
	}
	p.end(syscall.SIGTERM)
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("kubectl proxy has removed its socket (%v): has it changed?", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ours); !os.IsNotExist(err) {
		t.Errorf("our socket is left behind: %v", err)
	}
}

// leaveSocket leaves a socket that nobody listens on any more.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func testSocketFile(t *testing.T) {
	s := prepare(t)
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, s.path, "--unix-socket="+file)
	if said := p.said.String(); p.first != "" || !strings.Contains(said, "address already in use") {
		t.Errorf("kubectl proxy says %q and %q: has it changed?", p.first, said)
	}
	s.config.UnixSocket = file
	if err := s.runs(); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode()&fs.ModeType != 0 || info.Size() == 0 {
		t.Errorf("the file is not what it was: %v, error %v", info, err)
	}
}

// contains checks that a test elsewhere still says something that this one relies on.
func contains(t *testing.T, path, text string) {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), text) {
		t.Errorf("%s has no %q any more", path, text)
	}
}
