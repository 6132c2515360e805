package kubeproxy

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

// facts are what the reader must know of the machine and the programs.
func (o *options) facts(ctx context.Context) []report.Fact {
	out := []report.Fact{
		{Name: "date", Value: time.Now().UTC().Format("2006-01-02")},
		{Name: "machine", Value: machine()},
		{Name: "kernel", Value: kernelRelease()},
	}
	if o.only != peer {
		out = append(out, report.Fact{Name: varco, Value: says(ctx, o.varco, "--version")})
	}
	if o.only != varco {
		out = append(out, report.Fact{Name: peer, Value: says(ctx, o.peer, "--version")},
			report.Fact{Name: "nft", Value: says(ctx, "nft", "--version")})
	}
	return append(out, report.Fact{Name: "command", Value: "`varco-bench " + strings.Join(os.Args[1:], " ") + "`"})
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

// says returns the first line that a program writes.
func says(ctx context.Context, program string, args ...string) string {
	b, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
