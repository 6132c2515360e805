package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Files in the folder of a lab.
const (
	pidFile     = "supervisor.pid"
	configFile  = "config.json"
	controlFile = "control.sock"
	netnsDir    = "netns"
	logDir      = "log"
)

// Errors of the verbs.
var (
	// ErrUp says that there is a lab in the folder already.
	ErrUp = errors.New("a lab is already up; `varco-lab down` ends it")
	// ErrNotUp says that there is no lab in the folder, or a dead one.
	ErrNotUp = errors.New("no lab is up; `varco-lab up` starts one")
	// ErrNotRoot says that the verb cannot work for this user.
	ErrNotRoot = errors.New("needs root: the lab is made of network namespaces; try sudo")
	// errForeign protects folders that a lab did not make.
	errForeign = errors.New("the folder is not empty and not a lab's; choose another with --dir")
)

func needRoot() error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	return nil
}

// claim makes the folder a lab's, held by this process and by those that inherit the file. It returns ErrUp if a lab
// holds it. The lock tells at once whether a supervisor lives; its process id alone might be another's by now.
func claim(dir string) (*os.File, error) {
	if err := checkForeign(dir); err != nil {
		return nil, fmt.Errorf("folder %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of the lab: %w", err)
	}
	path := filepath.Join(dir, pidFile)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("claim folder of the lab: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(ErrUp, f.Close())
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		// Someone may have removed the file between opening and locking it.
		if sameFile(f, path) {
			return f, nil
		}
		f.Close()
	}
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func checkForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == pidFile {
			return nil
		}
	}
	return errForeign
}

// held says whether a supervisor, or an up that is about to start one, holds the folder.
func held(dir string) bool {
	f, err := os.Open(filepath.Join(dir, pidFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// identity tells one process from all others that have or had its process id.
type identity struct {
	pid   int
	start uint64 // clock ticks since the machine's start
}

// readIdentity returns the last supervisor of the folder as the host sees it, dead or alive; the error is
// os.ErrNotExist if there was none.
func readIdentity(dir string) (id identity, err error) {
	b, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return id, err
	}
	if n, _ := fmt.Sscan(string(b), &id.pid, &id.start); n != 2 {
		return id, os.ErrNotExist
	}
	return id, nil
}

// ownIdentity is this process as its parent sees it, for as long as /proc is still the parent's.
func ownIdentity() (identity, error) {
	s, err := readStat("/proc/self")
	return identity{s.pid, s.start}, err
}

// gone says that nothing of the process is left. For the first process of a PID namespace that means that nothing is
// left of any process of the namespace either: the kernel ends those before it.
func (id identity) gone() bool {
	s, err := readStat(fmt.Sprintf("/proc/%d", id.pid))
	return err != nil || s.start != id.start || s.state == 'Z' || s.state == 'X'
}

// waitGone waits until gone, up to limit, and says whether it came to that.
func (id identity) waitGone(limit time.Duration) bool {
	for end := time.Now().Add(limit); !id.gone(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
