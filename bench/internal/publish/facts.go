package publish

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"varco.dev/bench/internal/report"
)

// Machine returns what the reader must know of the day and the machine.
func Machine() []report.Fact {
	return []report.Fact{
		{Name: "date", Value: time.Now().UTC().Format("2006-01-02")},
		{Name: "machine", Value: machine()},
		{Name: "kernel", Value: kernelRelease()},
	}
}

// Command is the command line of this process as a fact.
func Command() report.Fact {
	return report.Fact{Name: "command", Value: "`varco-bench " + strings.Join(os.Args[1:], " ") + "`"}
}

func machine() string {
	return fmt.Sprintf("%d processors (%s), %s MiB of memory", runtime.NumCPU(), field("/proc/cpuinfo", "model name"),
		mebibytesOf(field("/proc/meminfo", "MemTotal")))
}

// field returns the first value of a key in a file of lines such as "key : value".
func field(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// mebibytesOf reads a value of /proc/meminfo, such as "1024 kB".
func mebibytesOf(s string) string {
	var kib float64
	if _, err := fmt.Sscanf(s, "%f kB", &kib); err != nil {
		return s
	}
	return report.Format(kib / 1024)
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Says returns the first line that a program writes, "unknown" if it fails.
func Says(ctx context.Context, program string, args ...string) string {
	b, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
