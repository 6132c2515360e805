package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ConntrackLimits are the wanted sizes and times of connection tracking, as kube-proxy's configuration has them. The zero
// value leaves everything as it is.
type ConntrackLimits struct {
	MaxPerCore            *int32         // connections for each CPU of the node; nil or 0 leaves the table's size alone
	Min                   *int32         // connections at least, if MaxPerCore is set
	TCPEstablishedTimeout *time.Duration // nil or 0 leaves it alone, as for the other times
	TCPCloseWaitTimeout   *time.Duration
	UDPTimeout            *time.Duration // of a flow that was not answered
	UDPStreamTimeout      *time.Duration // of one that was
	TCPBeLiberal          bool           // packets outside of the window are not invalid
}

// Setting is a file of the kernel and the number that it shall hold.
type Setting struct {
	Path    string // absolute
	Value   int
	AtLeast bool // a larger number is fine too
}

// String returns "path=value", for the log.
func (s Setting) String() string { return s.Path + "=" + strconv.Itoa(s.Value) }

const (
	conntrackDir  = "/proc/sys/net/netfilter/"
	conntrackHash = "/sys/module/nf_conntrack/parameters/hashsize"
	onlineCPUs    = "/sys/devices/system/cpu/online"
	oomScore      = "/proc/self/oom_score_adj"
)

const (
	maxConntrack   = 1 << 20 // connections; more would take gigabytes on machines with many CPUs. Upstream's limit
	flowsPerBucket = 4       // of the hash table, at most
)

// Settings returns what the limits mean on a machine with so many CPUs, in the order in which to set it. Times are in whole
// seconds, rounded down as upstream does, but one at least: 0 would forget connections at once.
func (l ConntrackLimits) Settings(cpus int) []Setting {
	var out []Setting
	if n := l.max(cpus); n > 0 {
		out = append(out, Setting{conntrackDir + "nf_conntrack_max", n, true}, Setting{conntrackHash, n / flowsPerBucket, true})
	}
	add := func(name string, d *time.Duration) {
		if d != nil && *d > 0 {
			out = append(out, Setting{Path: conntrackDir + name, Value: max(int(*d/time.Second), 1)})
		}
	}
	add("nf_conntrack_tcp_timeout_established", l.TCPEstablishedTimeout)
	add("nf_conntrack_tcp_timeout_close_wait", l.TCPCloseWaitTimeout)
	if l.TCPBeLiberal {
		out = append(out, Setting{Path: conntrackDir + "nf_conntrack_tcp_be_liberal", Value: 1})
	}
	add("nf_conntrack_udp_timeout", l.UDPTimeout)
	add("nf_conntrack_udp_timeout_stream", l.UDPStreamTimeout)
	return out
}

// max returns the size of the table, 0 for no wish. As upstream, the limit holds for the product alone, not for Min.
func (l ConntrackLimits) max(cpus int) int {
	if l.MaxPerCore == nil || *l.MaxPerCore <= 0 {
		return 0
	}
	scaled, floor := int64(*l.MaxPerCore)*int64(cpus), int64(0)
	if l.Min != nil {
		floor = int64(*l.Min)
	}
	if scaled > maxConntrack {
		return maxConntrack
	}
	return int(max(scaled, floor))
}

// OnlineCPUs returns the number of CPUs of the node. Unlike runtime.NumCPU, which it falls back to, it does not depend on
// the CPUs that this process may use: connections are tracked for the whole node. Root is the directory that stands for /,
// "" for itself.
func OnlineCPUs(root string) int {
	b, err := os.ReadFile(filepath.Join("/", root, onlineCPUs))
	if err != nil {
		return runtime.NumCPU()
	}
	n := 0
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") { // such as "0-3,8"
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || to < from {
			return runtime.NumCPU()
		}
		n += int(to - from + 1)
	}
	return n
}

// ApplySettings sets what does not have its value yet and returns what it has set. It goes on after a failure and returns
// all of them, as errors or, for files that this process cannot write to because their file system is read-only or belongs
// to the host, as warnings: the host's administrator has to set those, and there is nothing to retry. Root is as for
// OnlineCPUs. It may be repeated.
func ApplySettings(root string, settings []Setting) (set []Setting, warnings []string, err error) {
	var errs []error
	for _, s := range settings {
		changed, err := s.apply(root)
		switch {
		case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported):
			warnings = append(warnings, fmt.Sprintf("%s cannot be set from here, set it on the host: %v", s, err))
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("set %s: is the kernel module nf_conntrack loaded: %w", s, err))
		case err != nil:
			errs = append(errs, fmt.Errorf("set %s: %w", s, err))
		case changed:
			set = append(set, s)
		}
	}
	return set, warnings, errors.Join(errs...)
}

func (s Setting) apply(root string) (changed bool, err error) {
	path := filepath.Join("/", root, s.Path)
	now, err := readNumber(path)
	if err == nil && (now == s.Value || s.AtLeast && now > s.Value) {
		return false, nil
	}
	// Whatever was wrong with reading shows in writing too.
	if err := writeNumber(path, s.Value); err != nil {
		return false, err
	}
	return true, nil
}

func readNumber(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	// Hash sizes may be larger than an int on 32-bit machines; then they are larger than any wish too.
	return int(min(n, math.MaxInt)), err
}

// writeNumber does not make files: those of the kernel are there, or their feature is not.
func writeNumber(path string, n int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(n))
	return errors.Join(err, f.Close())
}

// SetOOMScore sets how readily the kernel ends this process when memory runs out, from -1000 (never) to 1000 (first; see
// proc_pid_oom_score_adj(5)). Lowering it needs CAP_SYS_RESOURCE. A proxy that could not set it runs on as well; callers
// log the error.
func SetOOMScore(score int) error {
	if err := writeNumber(oomScore, score); err != nil {
		return fmt.Errorf("set the score for running out of memory to %d: %w", score, err)
	}
	return nil
}
