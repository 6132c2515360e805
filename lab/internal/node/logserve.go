package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
)

// logPoll is how often a followed log is looked at.
const logPoll = 100 * time.Millisecond

// logOptions are the query of /containerLogs, the fields of v1.PodLogOptions.
type logOptions struct {
	follow, previous, timestamps bool
	tail                         int // -1: all
	limit                        int // bytes, -1: all
	since                        time.Time
}

func parseLogOptions(q url.Values, now time.Time) (logOptions, error) {
	o := logOptions{tail: -1, limit: -1}
	for name, to := range map[string]*bool{"follow": &o.follow, "previous": &o.previous, "timestamps": &o.timestamps} {
		if s := q.Get(name); s != "" {
			v, err := strconv.ParseBool(s)
			if err != nil {
				return o, err
			}
			*to = v
		}
	}
	for name, to := range map[string]*int{"tailLines": &o.tail, "limitBytes": &o.limit} {
		if s := q.Get(name); s != "" {
			v, err := strconv.Atoi(s)
			if err != nil {
				return o, err
			}
			*to = v
		}
	}
	if s := q.Get("sinceTime"); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return o, err
		}
		o.since = t
	}
	if s := q.Get("sinceSeconds"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return o, err
		}
		o.since = now.Add(-time.Duration(n) * time.Second)
	}
	return o, nil
}

func (a *Agent) serveLogs(w http.ResponseWriter, r *http.Request) {
	o, err := parseLogOptions(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := r.PathValue("container")
	p := a.find(r)
	if p == nil || !p.has(name) {
		http.Error(w, "no such pod or container on this node", http.StatusNotFound)
		return
	}
	path := a.logFile(p.latest(), name)
	if o.previous {
		path, o.follow = previousLog(path), false
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !o.follow {
		http.Error(w, "container "+name+" has printed no log yet", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	l := &logReader{out: w, o: o}
	if err := l.copyOld(path); err != nil || !o.follow {
		return
	}
	l.follow(r.Context(), path, func() bool { return p.runs(name) })
}

// find returns the pod that a request is about: the one with the UID if the request has one, otherwise that of the name
// which is not gone, if there are two.
func (a *Agent) find(r *http.Request) *pod {
	uid := r.PathValue("uid")
	var found *pod
	for _, p := range a.list() {
		obj := p.latest()
		if obj.Namespace != r.PathValue("namespace") || obj.Name != r.PathValue("pod") || uid != "" && string(obj.UID) != uid {
			continue
		}
		if !p.isGone() {
			return p
		}
		found = p
	}
	return found
}

func (p *pod) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

func (p *pod) has(container string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.rec.containers[container]
	return ok
}

// runs says whether a container runs or may run.
func (p *pod) runs(container string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.rec.containers[container]
	return !p.rec.ended && (s.State.Terminated == nil || p.api.Spec.RestartPolicy == v1.RestartPolicyAlways)
}

// logReader writes lines of a log to a client.
type logReader struct {
	out  http.ResponseWriter
	o    logOptions
	file *os.File // being read
	rest []byte   // a line whose end is not there yet
}

var errLimit = errors.New("byte limit reached")

// line writes one line of a log file, which begins with its time.
func (l *logReader) line(b []byte) error {
	stamp, text, _ := bytes.Cut(b, []byte(" "))
	if !l.o.since.IsZero() {
		if t, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil && t.Before(l.o.since) {
			return nil
		}
	}
	if l.o.timestamps {
		text = b
	}
	if l.o.limit >= 0 && len(text) > l.o.limit {
		text = text[:l.o.limit]
	}
	if l.o.limit >= 0 {
		l.o.limit -= len(text)
	}
	if _, err := l.out.Write(text); err != nil {
		return err
	}
	if l.o.limit == 0 {
		return errLimit
	}
	return nil
}

// copyOld writes what is there, of the rotated file too, and leaves the file open for follow.
func (l *logReader) copyOld(path string) error {
	var lines [][]byte
	for _, name := range []string{path + ".1", path} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		if l.file != nil {
			l.file.Close()
		}
		l.file = f
		r := bufio.NewReader(f)
		for {
			b, err := r.ReadBytes('\n')
			if err != nil {
				l.rest = b
				break
			}
			if lines = append(lines, b); l.o.tail >= 0 && len(lines) > l.o.tail {
				lines = lines[1:]
			}
		}
	}
	for _, b := range lines {
		if err := l.line(b); err != nil {
			return err
		}
	}
	if l.file != nil && !l.o.follow {
		return l.file.Close()
	}
	return nil
}

// follow writes what is added until the container has ended for good or the client is gone.
func (l *logReader) follow(ctx context.Context, path string, runs func() bool) {
	defer func() {
		if l.file != nil {
			l.file.Close()
		}
	}()
	flush := http.NewResponseController(l.out)
	for {
		live := runs()
		if err := l.more(); err != nil {
			return
		}
		if l.reopen(path) {
			continue
		}
		_ = flush.Flush()
		if !live || !sleep(ctx, logPoll) {
			return
		}
	}
}

// more writes the complete lines that were added.
func (l *logReader) more() error {
	if l.file == nil {
		return nil
	}
	b, err := io.ReadAll(l.file)
	if err != nil {
		return err
	}
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return nil
		}
		if err := l.line(l.rest[:i+1]); err != nil {
			return err
		}
		l.rest = l.rest[i+1:]
	}
}

// reopen goes on to the file that has taken the place of the one being read, if there is one.
func (l *logReader) reopen(path string) bool {
	now, err := os.Stat(path)
	if err != nil {
		return false
	}
	if l.file != nil {
		if have, err := l.file.Stat(); err == nil && os.SameFile(have, now) {
			return false
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.rest = f, nil
	return true
}
