//go:build linux

package handover_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"varco.dev/internal/apiserverlb/handover"
	"varco.dev/internal/nettest"
)

// asUser runs f in a thread that acts as another user; sockets that are made or connected meanwhile are that user's.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	nettest.NeedRoot(t)
	same := ^uintptr(0)
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			t.Error(errno)
			return
		}
		f()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, 0, same); errno != 0 {
			t.Error(errno)
		}
	})
	wg.Wait()
}

const stranger = 65534

func TestStrangersSocket(t *testing.T) {
	nettest.NeedRoot(t)
	path := socketPath(t)
	dir := filepath.Dir(path)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	asUser(t, stranger, func() { answer(t, path, `{"version":1,"kind":"offer","count":0}`) })
	_, err := handover.Take(t.Context(), path)
	if err == nil || errors.Is(err, handover.ErrNobody) || !strings.Contains(err.Error(), "belongs to user 65534, neither to this one, 0, nor to root") {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, stranger, -1)); err != nil {
		t.Fatal(err)
	}
	refusesToServe(t, path, "belongs to user 65534")
}

func TestStrangerTakes(t *testing.T) {
	nettest.NeedRoot(t)
	s := serve(t, socketPath(t), handover.Listener{Name: "a", Net: listen(t, "127.0.0.1:0")})
	dir := filepath.Dir(s.path)
	if err := errors.Join(os.Chmod(s.path, 0o777), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	var err error
	asUser(t, stranger, func() { _, err = handover.Take(t.Context(), s.path) })
	if err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("got %v", err)
	}
	s.logs("belongs to user 65534")
	if err := take(t, s.path).Close(); err != nil {
		t.Error(err)
	}
}
