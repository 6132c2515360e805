//go:build unix

package filewatch_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"varco.dev/internal/filewatch"
)

// TestReadNoFile reads what blocks or never ends. Without the checks of Read, it does not return.
func TestReadNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe, socket, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "socket"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string]string{
		pipe: "it is a pipe, not a file", link: "it is a pipe, not a file", socket: "it is a socket, not a file",
		"/dev/zero": "it is a device, not a file", os.DevNull: "it is a device, not a file",
	} {
		content, err := filewatch.Read(path, filewatch.Most)
		if len(content) > 0 || err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d bytes, error %v, want %q", path, len(content), err, want)
		}
	}
}
