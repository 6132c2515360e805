package contender

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHz is the unit of the times in /proc, the same on all machines that Linux runs on today: 100 per second.
const userHz = 100

// PID is a process on this machine, whoever has started it.
type PID int

// CPU returns the processor time that the process has used, to the nanosecond, with that of the programs that it ran and
// waited for, in steps of 10 ms.
func (p PID) CPU() (time.Duration, error) {
	b, err := p.proc("stat")
	if err != nil {
		return 0, err
	}
	children, err := parseStat(b)
	if err != nil {
		return 0, err
	}
	var own unix.Timespec
	if err := unix.ClockGettime(processClock(int(p)), &own); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(own.Nano()) + children, nil
}

// Memory returns the resident memory of the process now and at its peak, in bytes. Programs that it runs are not in it.
func (p PID) Memory() (now, peak int64, err error) {
	b, err := p.proc("status")
	if err != nil {
		return 0, 0, err
	}
	if now, err = parseStatus(b, "VmRSS"); err != nil {
		return 0, 0, err
	}
	peak, err = parseStatus(b, "VmHWM")
	return now, peak, err
}

// resetPeak is what proc_pid_clear_refs(5) wants for that.
const resetPeak = "5"

// ResetPeak makes the peak that Memory returns begin anew.
func (p PID) ResetPeak() error {
	if err := os.WriteFile(p.path("clear_refs"), []byte(resetPeak), 0); err != nil {
		return fmt.Errorf("reset peak of memory: %w", err)
	}
	return nil
}

func (p PID) proc(file string) (string, error) {
	b, err := os.ReadFile(p.path(file))
	return string(b), err
}

func (p PID) path(file string) string { return filepath.Join("/proc", strconv.Itoa(int(p)), file) }

// Find returns the process of which all these strings are arguments. There must be just one.
func Find(args ...string) (PID, error) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	var found []PID
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		has := strings.Split(string(b), "\x00")
		if slices.ContainsFunc(args, func(a string) bool { return !slices.Contains(has, a) }) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return 0, err
		}
		found = append(found, PID(pid))
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("find process %q: there are %d", args, len(found))
	}
	return found[0], nil
}

// PID is the number of the process. It is another's, or nobody's, once Check returns an error.
func (p *Process) PID() PID { return PID(p.cmd.Process.Pid) }

// CPU is PID.CPU of a process that has not ended.
func (p *Process) CPU() (time.Duration, error) {
	if err := p.Check(); err != nil {
		return 0, err
	}
	return p.PID().CPU()
}

// Memory is PID.Memory of a process that has not ended.
func (p *Process) Memory() (now, peak int64, err error) {
	if err := p.Check(); err != nil {
		return 0, 0, err
	}
	return p.PID().Memory()
}

// ResetPeak is PID.ResetPeak of a process that has not ended.
func (p *Process) ResetPeak() error {
	if err := p.Check(); err != nil {
		return err
	}
	return p.PID().ResetPeak()
}

// processClock is the clock of a process, as clock_getcpuclockid(3) forms it: 2 says that it counts scheduled time.
func processClock(pid int) int32 { return int32(^pid<<3 | 2) }

// parseStat adds cutime and cstime, fields 16 and 17 of proc_pid_stat(5).
func parseStat(stat string) (time.Duration, error) {
	// The name of the program stands in parentheses, and may have some and spaces itself.
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 15 {
		return 0, fmt.Errorf("read processor time: no such fields in %q", stat)
	}
	var ticks int64
	for _, f := range fields[13:15] { // the first of them is field 3
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHz, nil
}

func parseStatus(status, key string) (int64, error) {
	for line := range strings.Lines(status) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == key+":" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("read memory of the process: no %s", key)
}
