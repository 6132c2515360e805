package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	first, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !held(dir) {
		t.Error("a claimed folder is not held")
	}
	if _, err := claim(dir); !errors.Is(err, ErrUp) {
		t.Errorf("second claim: got %v, want %v", err, ErrUp)
	}
	first.Close()
	if held(dir) {
		t.Error("a folder is held after its claim ended")
	}
	again, err := claim(dir)
	if err != nil {
		t.Errorf("claim after the first ended: %v", err)
	}
	again.Close()
}

func TestClaimRefusesForeignFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir); !errors.Is(err, errForeign) {
		t.Errorf("got %v, want %v", err, errForeign)
	}
}

func TestSweepRemovesAllButTheClaim(t *testing.T) {
	dir := t.TempDir()
	lock, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := (identity{1 << 30, 1}).write(lock); err != nil { // a process that is not there
		t.Fatal(err)
	}
	for _, name := range labEntries() {
		if err := os.MkdirAll(filepath.Join(dir, name, "more"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweep(dir, lock); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != pidFile {
		t.Errorf("left: %v, %v", entries, err)
	}
	if _, err := readIdentity(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("identity after sweep: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	own, err := ownIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if own.pid != os.Getpid() || own.gone() {
		t.Errorf("this process: %+v, gone %t", own, own.gone())
	}
	if other := (identity{own.pid, own.start + 1}); !other.gone() {
		t.Error("an earlier process with this process id is not gone")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s, err := readStat(fmt.Sprintf("/proc/%d", cmd.Process.Pid))
	if err != nil || s.parent != os.Getpid() {
		t.Errorf("child: %+v, %v", s, err)
	}
	child := identity{s.pid, s.start}
	if child.waitGone(50 * time.Millisecond) {
		t.Error("a process that runs is gone")
	}
	cmd.Process.Kill()
	if !child.waitGone(10 * time.Second) { // it stays a zombie until Wait
		t.Error("a killed process is not gone")
	}
	cmd.Wait()
}
