package discovery_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"

	"varco.dev/internal/backend/discovery"
)

// TestFileIsAPipe at which nobody writes: it does not hold up the start, and gives way to a file.
func TestFileIsAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cache.json")
		if err := syscall.Mkfifo(file, 0o600); err != nil {
			t.Fatal(err)
		}
		s := start(t, discovery.Config{Static: static("api:6443"), CacheFile: file}, replies("api", reply{addrs: "10.0.0.1"}))
		s.want("at the start", "10.0.0.1:6443 dns api")
		if got := s.log.count("it is a pipe, not a file"); got != 1 {
			t.Errorf("log: %s", s.log.text.String())
		}
		s.end()
		s = kept(t, file, reply{err: errServer()})
		s.want("at the next", "10.0.0.1:6443 cache")
	})
}
