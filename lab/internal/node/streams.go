package node

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

// streams are what one run of a container reads and prints.
type streams struct {
	out, errs *output
	in        *os.File      // where its input is written to; nil: it has none
	once      bool          // its input, if no terminal, ends with the first client that had it
	terminal  *os.File      // our end of its terminal; nil: it has none
	theirs    []*os.File    // the process's ends of what is open
	copied    chan struct{} // closed when all that the terminal showed is in out
}

// openStreams opens what a container asks for: a terminal, an input, or just places to print to.
func openStreams(c *v1.Container, log *logWriter) (*streams, error) {
	s := &streams{out: newOutput(log), errs: newOutput(errorLog{log}), once: c.StdinOnce, copied: make(chan struct{})}
	switch {
	case c.TTY:
		ours, theirs, err := openTerminal()
		if err != nil {
			return nil, err
		}
		s.terminal, s.theirs = ours, []*os.File{theirs}
		if c.Stdin {
			s.in = ours
		}
		go func() { _, _ = io.Copy(s.out, ours); close(s.copied) }() // ends when the last process closes its end
		return s, nil
	case c.Stdin:
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.in, s.theirs = write, []*os.File{read}
	}
	close(s.copied)
	return s, nil
}

// give makes the streams those of a process that is to be started.
func (s *streams) give(to *processSpec) {
	to.Stdout, to.Stderr = s.out, s.errs
	if len(s.theirs) > 0 {
		to.Stdin = s.theirs[0]
	}
	if s.terminal != nil {
		to.Stdout, to.Stderr, to.Terminal = s.theirs[0], s.theirs[0], true
	}
}

// given closes what the process has its own handle of now.
func (s *streams) given() {
	for _, f := range s.theirs {
		f.Close()
	}
}

// end lets all clients go once they have what was printed; the process has ended.
func (s *streams) end() {
	if s.terminal != nil {
		select {
		case <-s.copied:
		case <-time.After(leakedEnd):
		}
		s.terminal.Close()
	} else if s.in != nil {
		s.in.Close()
	}
	s.out.end()
	s.errs.end()
}

// leakedEnd is how long the output of a container is waited for that has ended but left its terminal to another process.
const leakedEnd = time.Second

// backlog is how many pieces of output, of 32 KiB at most, are kept for a client that is slow to take them.
const backlog = 256

// errSlow ends a client that does not take what a container prints: the container does not wait for it.
var errSlow = errors.New("the client does not take the output fast enough")

// output is where a container prints to: a log, and the clients that are attached.
type output struct {
	log io.Writer

	// mu guards the fields below.
	mu      sync.Mutex
	clients map[*follower]struct{}
	ended   bool
}

// follower is one client of an output.
type follower struct {
	pieces chan []byte // closed when there will be no more
	slow   bool        // pieces were lost; may be read once pieces is closed
}

func newOutput(log io.Writer) *output { return &output{log: log, clients: map[*follower]struct{}{}} }

// Write never fails and never waits for a client.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.clients {
		select {
		case c.pieces <- append([]byte(nil), p...):
		default:
			c.slow = true
			o.remove(c)
		}
	}
	return o.log.Write(p)
}

// follow adds a client; the caller must leave.
func (o *output) follow() *follower {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := &follower{pieces: make(chan []byte, backlog)}
	o.clients[c] = struct{}{}
	if o.ended {
		o.remove(c)
	}
	return c
}

// leave removes a client; one that is not there is fine.
func (o *output) leave(c *follower) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove(c)
}

// remove is leave with mu held.
func (o *output) remove(c *follower) {
	if _, ok := o.clients[c]; ok {
		delete(o.clients, c)
		close(c.pieces)
	}
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for c := range o.clients {
		o.remove(c)
	}
}

// copyTo writes what the client is to have until there is no more.
func (c *follower) copyTo(w io.Writer) error {
	for p := range c.pieces {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	if c.slow {
		return errSlow
	}
	return nil
}
