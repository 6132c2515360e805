package contender

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Tree are a process and all that descend from it, such as the workers of a server.
type Tree []PID

// Tree finds the processes that run now.
func (p PID) Tree() (Tree, error) {
	children, err := childrenOf()
	if err != nil {
		return nil, err
	}
	out := Tree{p}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out, nil
}

// childrenOf are the children of all processes.
func childrenOf() (map[PID][]PID, error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	out := map[PID][]PID{}
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		parent, err := parseParent(string(b))
		if err != nil {
			return nil, err
		}
		out[parent] = append(out[parent], PID(pid))
	}
	return out, nil
}

// parseParent reads ppid, field 4 of proc_pid_stat(5).
func parseParent(stat string) (PID, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // the first of them is field 3
	if len(fields) < 2 {
		return 0, fmt.Errorf("read parent of process: no such field in %q", stat)
	}
	n, err := strconv.Atoi(fields[1])
	return PID(n), err
}

// CPU is the sum of PID.CPU.
func (t Tree) CPU() (sum time.Duration, err error) {
	for _, p := range t {
		d, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// Memory is the resident memory of all of them. What they share counts for each: it is for differences.
func (t Tree) Memory() (sum int64, err error) {
	for _, p := range t {
		now, _, err := p.Memory()
		if err != nil {
			return 0, err
		}
		sum += now
	}
	return sum, nil
}

// Descriptors is how many files they have open.
func (t Tree) Descriptors() (sum int, err error) {
	for _, p := range t {
		entries, err := os.ReadDir(p.path("fd"))
		if err != nil {
			return 0, fmt.Errorf("count descriptors: %w", err)
		}
		sum += len(entries)
	}
	return sum, nil
}
