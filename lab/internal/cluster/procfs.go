package cluster

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// stat is what the lab needs of proc(5)'s file stat.
type stat struct {
	pid, parent int
	state       byte
	start       uint64
}

// readStat reads the file of one process; dir is /proc/PID of any proc file system.
func readStat(dir string) (s stat, err error) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return s, err
	}
	// The second field, the name in parentheses, may hold blanks and parentheses.
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return s, fmt.Errorf("%s/stat: no process name", dir)
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 20 {
		return s, fmt.Errorf("%s/stat: %d fields", dir, len(fields))
	}
	if _, err := fmt.Sscan(string(b), &s.pid); err != nil {
		return s, fmt.Errorf("%s/stat: %w", dir, err)
	}
	s.state = fields[0][0]
	s.parent, _ = strconv.Atoi(fields[1])
	s.start, _ = strconv.ParseUint(fields[19], 10, 64)
	return s, nil
}

// ownMemory returns the bytes that a process has in memory for itself alone, without the program, which all processes of
// a lab share; 0 for a process that has just ended.
func ownMemory(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident, shared int64
	if n, _ := fmt.Sscan(string(b), &size, &resident, &shared); n != 3 {
		return 0
	}
	return (resident - shared) * int64(os.Getpagesize())
}
