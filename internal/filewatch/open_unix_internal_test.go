//go:build unix

package filewatch

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestOpening opens a pipe as Read does if one comes to be where a file was just before: it must not wait for a writer.
func TestOpening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|nonblocking, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := regular(path, info); err == nil {
		t.Error("a pipe passes for a file")
	}
}
