package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"varco.dev/internal/nettest"
)

// fill makes files in a new folder, by name and content.
func fill(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestDownLeavesFoldersOfOthersAlone(t *testing.T) {
	nettest.NeedRoot(t)
	for name, tc := range map[string]struct {
		files map[string]string
		want  error
	}{
		"empty":                       {nil, nil},
		"without a process id":        {map[string]string{"precious": ""}, errForeign},
		"a process id":                {map[string]string{pidFile: "1234\n"}, errForeign},
		"a process id and files":      {map[string]string{pidFile: "1 1\n", "precious": ""}, errForeign},
		"an empty file and files":     {map[string]string{pidFile: "", "precious": ""}, errForeign},
		"a lab's names without magic": {map[string]string{pidFile: "1 1\n", configFile: "", "kubeconfig": ""}, errForeign},
	} {
		dir := fill(t, tc.files)
		removed, err := Down(t.Context(), dir)
		if removed || !errors.Is(err, tc.want) {
			t.Errorf("%s: down: %t, %v, want false, %v", name, removed, err, tc.want)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(tc.files) {
			t.Errorf("%s: left: %v, %v", name, entries, err)
		}
		if id, err := readIdentity(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: identity %v, %v", name, id, err)
		}
	}
}

// What a person stored in the folder of a lab outlives it, and so does the lab's folder.
func TestDownRemovesOnlyWhatALabMade(t *testing.T) {
	nettest.NeedRoot(t)
	dir := fill(t, map[string]string{pidFile: magic, "kubeconfig": "", "precious": ""})
	removed, err := Down(t.Context(), dir)
	if !removed || err == nil {
		t.Errorf("down: %t, %v, want true and an error", removed, err)
	}
	if !exists(filepath.Join(dir, "precious")) || exists(filepath.Join(dir, "kubeconfig")) || exists(filepath.Join(dir, pidFile)) {
		t.Error("want what is precious and nothing else left")
	}
}

func TestDownRemovesDeadLab(t *testing.T) {
	nettest.NeedRoot(t)
	for name, content := range map[string]string{"just claimed": "", "marked": magic, "ran once": magic + "1073741824 1\n"} {
		dir := fill(t, map[string]string{pidFile: content})
		if removed, err := Down(t.Context(), dir); !removed || err != nil || exists(dir) {
			t.Errorf("%s: down: %t, %v, folder left: %t", name, removed, err, exists(dir))
		}
	}
}

// A process that has the id of one that is gone is not hit.
func TestSignalHitsOneProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	s, err := readStat(fmt.Sprintf("/proc/%d", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := (identity{s.pid, s.start - 1}).signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if (identity{s.pid, s.start}).waitGone(50 * time.Millisecond) {
		t.Error("another process was hit")
	}
	if err := (identity{s.pid, s.start}).signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the process was not hit")
	}
	if err := (identity{s.pid, s.start}).signal(unix.SIGKILL); err != nil {
		t.Errorf("signal to what is gone: %v", err)
	}
}
