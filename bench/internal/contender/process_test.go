package contender_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/internal/nettest"
)

func start(t *testing.T, args ...string) *contender.Process {
	t.Helper()
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	p, err := contender.Start(ns, contender.Contender{Name: "shell", Path: "sh", Args: args}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

func TestProcessRunsInItsNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "links")
	p := start(t, "-c", "ls /sys/class/net >/dev/null; cat /proc/net/dev > "+file+"; echo last words; exit 3")
	if err := wait(p); !strings.Contains(err.Error(), "last words") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %q, want the status and what was written", err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), ":"); n != 1 || !strings.Contains(string(b), "lo:") {
		t.Errorf("got interfaces\n%s\nwant lo alone", b)
	}
}

func TestCostCountsOwnTimeAndChildren(t *testing.T) {
	// The child works for 0.3 s of its own; then the shell itself works until it is ended.
	p := start(t, "-c", "timeout 0.3 sh -c 'while :; do :; done'; while :; do :; done")
	deadline := time.Now().Add(20 * time.Second)
	for {
		cpu, err := p.CPU()
		if err != nil {
			t.Fatal(err)
		}
		if cpu > 500*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("used %v of processor time only", cpu)
		}
		time.Sleep(10 * time.Millisecond) // for the shell to work
	}
	now, peak, err := p.Memory()
	if err != nil || now <= 0 || peak < now {
		t.Errorf("got memory %d and peak %d, %v", now, peak, err)
	}
	p.Stop()
	if p.Check() == nil {
		t.Error("a process that was stopped is said to run")
	}
}

func TestStartTellsOfAMissingProgram(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("test")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	c := contender.Contender{Name: "nothing", Path: filepath.Join(t.TempDir(), "nothing")}
	if _, err := contender.Start(ns, c, filepath.Join(t.TempDir(), "log")); err == nil {
		t.Error("started what is not there")
	}
}

// TestPeakOfMemoryBeginsAnew runs without a namespace, and so without root.
func TestPeakOfMemoryBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	// The shell takes 32 MiB, lets go of them, and waits.
	script := "x=$(head -c 33554432 /dev/zero | tr '\\0' x); unset x; touch " + dir + "/freed; while :; do sleep 1; done"
	c := contender.Contender{Name: "shell", Path: "sh", Args: []string{"-c", script}}
	p, err := contender.Start(nil, c, filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := os.Stat(filepath.Join(dir, "freed")); err == nil {
			break
		}
		if err := p.Check(); err != nil || time.Now().After(deadline) {
			t.Fatalf("the shell is not ready: %v", err)
		}
		time.Sleep(time.Millisecond) // for the shell to work
	}
	_, before, err := p.Memory()
	if err != nil || before < 32<<20 {
		t.Fatalf("got a peak of %d, %v, want 32 MiB or more", before, err)
	}
	if err := p.ResetPeak(); err != nil {
		t.Fatal(err)
	}
	if now, after, err := p.Memory(); err != nil || after >= before || after < now {
		t.Errorf("got memory %d and peak %d, %v, want less than %d", now, after, err, before)
	}
}

// wait returns how the process ended.
func wait(p *contender.Process) error {
	for {
		if err := p.Check(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond) // for the process to end
	}
}

func TestFindByArguments(t *testing.T) {
	name := "a-name-of-" + filepath.Base(t.TempDir()) + t.Name()
	p := start(t, "-c", "sleep 60", name, "more")
	if got, err := contender.Find(name, "more"); got != p.PID() || err != nil {
		t.Errorf("got %d, %v, want %d", got, err, p.PID())
	}
	if got, err := contender.Find(name, "less"); err == nil {
		t.Errorf("got %d, which has not all of the arguments", got)
	}
	second := start(t, "-c", "sleep 60", name, "more")
	if got, err := contender.Find(name, "more"); err == nil {
		t.Errorf("got %d, where there are %d and %d", got, p.PID(), second.PID())
	}
}

// A shell waits for a child of its own, and both count.
func TestTree(t *testing.T) {
	p := start(t, "-c", "sleep 60 & wait")
	for deadline := time.Now().Add(20 * time.Second); ; {
		tree, err := p.PID().Tree()
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("got %v: %v, want two processes", tree, err)
		}
		if len(tree) < 2 {
			time.Sleep(time.Millisecond) // for the shell to work
			continue
		}
		both, err := tree.Memory()
		one, _, errOne := p.Memory()
		files, errFiles := tree.Descriptors()
		if err != nil || errOne != nil || errFiles != nil || len(tree) != 2 || both <= one || files < 6 {
			t.Errorf("%v have %d files and %d bytes, %d is the shell's: %v %v %v", tree, files, both, one, err, errOne, errFiles)
		}
		if _, err := tree.CPU(); err != nil {
			t.Error(err)
		}
		return
	}
}
