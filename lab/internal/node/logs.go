package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

// maxLogSize is the size at which a container's log file is put aside as FILE.1, the only one kept.
const maxLogSize = 8 << 20

// maxLogLine is the length at which a line without end is written out.
const maxLogLine = 16 << 10

// logFile returns the path of a container's log, named by the pod's UID too: another pod may have the name later.
func (a *Agent) logFile(pod *v1.Pod, container string) string {
	return filepath.Join(a.cfg.Dir, "log", fmt.Sprintf("%s_%s_%s_%s.log", pod.Namespace, pod.Name, pod.UID, container))
}

// previousLog is where the log of the run before is.
func previousLog(path string) string { return path + ".previous" }

// logWriter writes what a container prints to a bounded file, each line after its time in RFC 3339 form and a space.
type logWriter struct {
	path string

	// mu guards the fields below.
	mu    sync.Mutex
	f     *os.File
	size  int
	lines [2]bytes.Buffer // lines that have no end yet: of standard output and of standard error
}

// errorLog writes what a container prints to standard error, beside what it prints to standard output.
type errorLog struct{ *logWriter }

// Write is that of logWriter.
func (w errorLog) Write(p []byte) (int, error) { return w.write(&w.lines[1], p) }

// newLog starts the log of a new run and puts that of the run before aside.
func newLog(path string) (*logWriter, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make log folder: %w", err)
	}
	if err := os.Rename(path, previousLog(path)); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("put log aside: %w", err)
	}
	_ = os.Remove(path + ".1")
	w := &logWriter{path: path}
	return w, w.open()
}

func (w *logWriter) open() (err error) {
	w.size = 0
	if w.f, err = os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	return nil
}

// Write never fails: a container must not block or end because its log cannot be written.
func (w *logWriter) Write(p []byte) (int, error) { return w.write(&w.lines[0], p) }

// write writes the lines that p completes; line is what its stream had before.
func (w *logWriter) write(line *bytes.Buffer, p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := p
	for len(rest) > 0 {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			line.Write(rest)
			if line.Len() >= maxLogLine {
				w.flush(line)
			}
			break
		}
		line.Write(rest[:i])
		w.flush(line)
		rest = rest[i+1:]
	}
	return len(p), nil
}

func (w *logWriter) flush(text *bytes.Buffer) {
	line := make([]byte, 0, 40+text.Len())
	line = time.Now().UTC().AppendFormat(line, time.RFC3339Nano)
	line = append(line, ' ')
	line = append(line, text.Bytes()...)
	line = append(line, '\n')
	text.Reset()
	if w.f == nil {
		return
	}
	n, _ := w.f.Write(line)
	if w.size += n; w.size >= maxLogSize {
		w.f.Close()
		_ = os.Rename(w.path, w.path+".1")
		_ = w.open()
	}
}

// Close writes last lines that have no end and closes the file.
func (w *logWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.lines {
		if w.lines[i].Len() > 0 {
			w.flush(&w.lines[i])
		}
	}
	if w.f == nil {
		return nil
	}
	err := w.f.Close()
	w.f = nil
	return err
}
