package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	errForeign = errors.New("the folder is not empty and no lab made it; choose another with --dir, or empty it yourself")
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
			return mark(f)
		}
		f.Close()
	}
}

// mark makes the claimed file, and with it the folder, a lab's.
func mark(f *os.File) (*os.File, error) {
	if _, err := f.WriteAt([]byte(magic), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("mark folder of the lab: %w", err), f.Close())
	}
	return f, nil
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
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
	rest, ours := strings.CutPrefix(string(b), magic)
	if n, _ := fmt.Sscan(rest, &id.pid, &id.start); !ours || n != 2 {
		return id, os.ErrNotExist
	}
	return id, nil
}

// write stores the identity for readIdentity in the file of the claim.
func (id identity) write(lock *os.File) error {
	_, err := lock.WriteAt(fmt.Appendln(nil, id.pid, id.start), int64(len(magic)))
	return err
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

// signal sends a signal to the process if it still lives, and to no other that has its process id by now.
func (id identity) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(id.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d of the lab: %w", id.pid, err)
	}
	defer unix.Close(fd)
	// From here on fd stands for one process, whatever becomes of its id: what is seen now is true of that process.
	if id.gone() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process %d of the lab: %w", id.pid, err)
	}
	return nil
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
