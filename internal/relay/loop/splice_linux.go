package loop

import (
	"errors"
	"syscall"

	"varco.dev/internal/kernel/tcp"
)

const (
	// fullSize is what a read must bring to count as full, and fullBeforeSplice how many such in a row make a flow bulk. It
	// is bulk no more when maxFull-fullBeforeSplice pieces more were small than were full: one that ends with a small piece,
	// or is read faster than it comes, goes on as it was.
	fullSize         = 16 << 10
	smallSize        = 4 << 10
	fullBeforeSplice = 4
	maxFull          = 16
	// spliceBytes is the size of a pipe, and what is moved at once.
	spliceBytes = 1 << 20
	// maxPipes is how many pipes a loop has at most: a flow beyond them is copied.
	maxPipes = 64
	// maxChunks is how many buffers of each size a loop keeps for blocked writes to come.
	maxChunks = 16
	// maxHeld is how many bytes of buffers blocked writes of a loop may have before reads become small. Each may have one more
	// of the smallest then: with 20,000 sessions of which both sides do not read, that is 80 MiB.
	maxHeld = 64 << 20
)

// fullness counts what looks like bulk.
func (e *end) fullness(n int) {
	switch {
	case n >= fullSize:
		e.full = min(e.full+1, maxFull)
	case e.full < fullBeforeSplice:
		e.full = 0
	case n < smallSize:
		e.full--
	}
}

// pipe is a pipe and how much is in it.
type pipe struct {
	tcp.Pipe
	holds int
}

// pipes are those of a loop.
type pipes struct {
	idle  []*pipe
	open  int
	least int // of idle ones since the last tick: so many were not needed
}

// take returns an empty pipe; nil: there is none.
func (p *pipes) take() *pipe {
	if n := len(p.idle); n > 0 {
		last := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.least = min(p.least, n-1)
		return last
	}
	if p.open >= maxPipes {
		return nil
	}
	fresh, err := tcp.OpenPipe(spliceBytes)
	if err != nil {
		return nil
	}
	p.open++
	return &pipe{Pipe: fresh}
}

// give takes a pipe back. One that is not empty cannot be used again.
func (p *pipes) give(one *pipe) {
	if one.holds > 0 {
		one.Close()
		p.open--
		return
	}
	p.idle = append(p.idle, one)
}

// trim closes those that were idle since it was last called.
func (p *pipes) trim() {
	for range p.least {
		p.idle[0].Close()
		p.idle = p.idle[1:]
		p.open--
	}
	p.least = len(p.idle)
}

func (p *pipes) closeAll() {
	p.least = len(p.idle)
	p.trim()
}

// splice moves bytes without copying them; false: there is no pipe, or the socket cannot do it.
func (w *worker) splice(s *session, from, to *end) (moved int, broken *end, ok bool) {
	p := w.pipes.take()
	if p == nil {
		from.full = 0
		return 0, nil, false
	}
	n, err := p.Fill(from.fd, spliceBytes)
	switch {
	case errors.Is(err, tcp.ErrWouldBlock):
		from.readable = false
	case errors.Is(err, syscall.EINVAL): // it cannot be done with this socket
		from.full = 0
		w.pipes.give(p)
		return 0, nil, false
	case err != nil:
		w.pipes.give(p)
		return 0, from.fail(err), true
	case n == 0:
		from.ended, from.readable = true, false
	}
	if n == 0 {
		w.pipes.give(p)
		return 0, nil, true
	}
	p.holds = n
	from.pipe = p
	from.fullness(n)
	w.counted(s, from, n)
	w.stats.spliced.Add(uint64(n))
	return n, w.flushPipe(s, from, to), true
}

// flushPipe empties the pipe as far as there is room, and gives it back when it is empty.
func (w *worker) flushPipe(s *session, from, to *end) *end {
	for p := from.pipe; p.holds > 0; {
		if !to.writable {
			return nil
		}
		n, err := p.Drain(to.fd, p.holds)
		if errors.Is(err, tcp.ErrWouldBlock) {
			to.writable = false
			return nil
		}
		if err != nil || n == 0 {
			return to.fail(err)
		}
		p.holds -= n
		w.wrote(s, to)
	}
	w.release(from)
	return nil
}

// release gives back what held bytes read from an end.
func (w *worker) release(e *end) {
	if e.pipe != nil {
		w.pipes.give(e.pipe)
		e.pipe = nil
	}
	if e.chunk != nil {
		w.chunks.give(e.chunk)
		e.chunk = nil
	}
	e.rest = nil
}

// chunks are buffers for what could not be written, in three sizes.
type chunks struct {
	idle [len(chunkSizes)][][]byte
	held int // bytes that are taken
}

var chunkSizes = [...]int{2 << 10, 16 << 10, bufferSize}

// take returns a buffer for so many bytes, at most bufferSize.
func (c *chunks) take(n int) []byte {
	for i, size := range chunkSizes {
		if n > size {
			continue
		}
		c.held += size
		if last := len(c.idle[i]) - 1; last >= 0 {
			b := c.idle[i][last]
			c.idle[i] = c.idle[i][:last]
			return b
		}
		return make([]byte, size)
	}
	c.held += n
	return make([]byte, n)
}

// trim forgets half of those that nobody needs now, and returns whether there are more.
func (c *chunks) trim() (more bool) {
	for i, idle := range c.idle {
		keep := len(idle) / 2
		clear(idle[keep:])
		c.idle[i] = idle[:keep]
		more = more || keep > 0
	}
	return more
}

func (c *chunks) give(b []byte) {
	c.held -= len(b)
	for i, size := range chunkSizes {
		if len(b) == size && len(c.idle[i]) < maxChunks {
			c.idle[i] = append(c.idle[i], b)
		}
	}
}
