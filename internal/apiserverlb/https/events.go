package https

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync"
)

// events follows where the events of a watch end, by the form of its answer: JSON, in which a line is one, or Kubernetes'
// protobuf, in which four bytes say how long the next one is (apimachinery, util/framer). Of others it knows nothing, and takes
// what comes for whole ones.
type events struct {
	form form
	head [4]byte
	read int   // of head
	left int64 // of the event
}

type form uint8

const (
	unknownForm form = iota
	lines
	lengths
)

func formOf(h http.Header) form {
	switch kind := h.Get("Content-Type"); {
	case h.Get("Content-Encoding") != "":
	case strings.HasPrefix(kind, "application/json"):
		return lines
	case strings.HasPrefix(kind, "application/vnd.kubernetes.protobuf"):
		return lengths
	}
	return unknownForm
}

// last returns how far the last event reaches that ends in what has come now; -1: none does.
func (e *events) last(p []byte) int {
	switch e.form {
	case lines:
		if at := bytes.LastIndexByte(p, '\n'); at >= 0 {
			return at + 1
		}
		return -1
	case lengths:
		return e.count(p)
	}
	return len(p)
}

func (e *events) count(p []byte) int {
	last := -1
	for at := 0; at < len(p); {
		if e.read < len(e.head) {
			n := copy(e.head[e.read:], p[at:])
			e.read, at = e.read+n, at+n
			if e.read < len(e.head) {
				break
			}
			e.left = int64(binary.BigEndian.Uint32(e.head[:]))
		}
		n := min(e.left, int64(len(p)-at))
		e.left, at = e.left-n, at+int(n)
		if e.left == 0 {
			e.read, last = 0, at
		}
	}
	return last
}

// watchBody is the answer to a watch, which can be ended after a whole event.
type watchBody struct {
	io.ReadCloser
	f *flight

	mu     sync.Mutex // guards the fields below
	events events
	part   bool // of an event has been read, and not the rest
	ends   bool // after the event that is being read
	over   bool
}

// shed ends it, now or after the event that is being read.
func (b *watchBody) shed() {
	b.mu.Lock()
	b.ends, b.over = true, b.over || !b.part
	over := b.over
	b.mu.Unlock()
	if over {
		b.f.cancel(errShed)
	}
}

// Read implements io.Reader. A watch whose backend breaks ends in order: its client begins the next one where this one ended,
// whereas an answer that is cut has many clients list all objects again (client-go's reflector does for an error that it
// does not know, such as a stream of HTTP/2 that was reset). A part of an event that was read before does no harm: it cannot
// be understood.
func (b *watchBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, io.EOF // what came meanwhile comes again with the next watch
	}
	if n > 0 {
		last := b.events.last(p[:n])
		if b.ends && last >= 0 {
			b.over = true
			return last, io.EOF
		}
		b.part = last < n
	}
	if err != nil && b.f.from.Err() == nil {
		err = io.EOF
	}
	return n, err
}

// Close implements io.Closer.
func (b *watchBody) Close() error {
	defer b.f.end()
	return b.ReadCloser.Close()
}
