package contender

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHz is the unit of the times in /proc, the same on all machines that Linux runs on today: 100 per second.
const userHz = 100

// CPU returns the processor time that the process has used, to the nanosecond, with that of the programs that it ran and
// waited for, in steps of 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	b, err := p.proc("stat")
	if err != nil {
		return 0, err
	}
	children, err := parseStat(b)
	if err != nil {
		return 0, err
	}
	var own unix.Timespec
	if err := unix.ClockGettime(processClock(p.cmd.Process.Pid), &own); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(own.Nano()) + children, nil
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

// Memory returns the resident memory of the process now and at its peak, in bytes. Programs that it runs are not in it.
func (p *Process) Memory() (now, peak int64, err error) {
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
func (p *Process) ResetPeak() error {
	if err := p.Check(); err != nil {
		return err
	}
	path := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "clear_refs")
	if err := os.WriteFile(path, []byte(resetPeak), 0); err != nil {
		return fmt.Errorf("reset peak of memory: %w", err)
	}
	return nil
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

func (p *Process) proc(file string) (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), file))
	return string(b), err
}
