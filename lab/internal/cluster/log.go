package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of logs.
const (
	maxLogSize   = 8 << 20     // of a component's log, and of the older part of it that is kept as FILE.1
	logDelay     = time.Second // for output to arrive that a component left behind
	tailBytes    = 64 << 10    // to look at, for the last lines
	tailLine     = 400         // bytes of a line to show
	failureLines = 8           // to show of the log of a component that failed
	shownLines   = 15          // to show of each log of a lab that failed
	shownLogs    = 40
)

func logPath(dir, name string) string { return filepath.Join(dir, logDir, name+".log") }

// boundedLog is a log that takes no more than twice its limit on disk. Writing to it never fails, because a component
// must not end for its log.
type boundedLog struct {
	path  string
	limit int64

	// mu guards the fields below.
	mu   sync.Mutex
	file *os.File
	size int64
}

// openLog goes on with the log at the path.
func openLog(path string, limit int64) (*boundedLog, error) {
	l := &boundedLog{path: path, limit: limit}
	return l, l.open()
}

func (l *boundedLog) open() error {
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	l.file, l.size = file, info.Size()
	return nil
}

// Write puts a full log aside first; what cannot be written is lost.
func (l *boundedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(b)) > l.limit && l.putAside() != nil {
		return len(b), nil // better no word than no bound
	}
	n, _ := l.file.Write(b)
	l.size += int64(n)
	return len(b), nil
}

// putAside begins a new file. It needs mu, and may be tried again.
func (l *boundedLog) putAside() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	full := l.file
	if err := l.open(); err != nil {
		return err
	}
	return full.Close()
}

// Close closes the file. Nothing may be written after it.
func (l *boundedLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// WriteLogs writes the ends of the logs of a lab, dead or alive: what its components and the containers of its pods
// wrote last, 15 lines of each at most. It is for the eyes of someone who wonders why a lab failed.
func WriteLogs(w io.Writer, dir string) {
	var paths []string
	for _, pattern := range []string{logPath(dir, "*"), filepath.Join(dir, "nodes", "*", "log", "*")} {
		found, _ := filepath.Glob(pattern) // fails for a wrong pattern only
		paths = append(paths, found...)
	}
	paths = slices.DeleteFunc(paths, func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() == 0
	})
	for _, path := range paths[:min(len(paths), shownLogs)] {
		fmt.Fprintf(w, "the end of %s:\n%s\n", path, tail(path, shownLines))
	}
	if more := len(paths) - shownLogs; more > 0 {
		fmt.Fprintf(w, "and %d logs more\n", more)
	}
}

// tail returns the last n lines of a file, indented.
func tail(path string, n int) string {
	b, err := readEnd(path)
	if err != nil {
		return "  " + err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		lines[i] = "  " + line[:min(len(line), tailLine)]
	}
	return strings.Join(lines, "\n")
}

func readEnd(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > tailBytes {
		if _, err := f.Seek(-tailBytes, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(f)
}
