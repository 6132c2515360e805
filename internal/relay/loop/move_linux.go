package loop

import (
	"errors"

	"varco.dev/internal/kernel/tcp"
)

// move moves what can be moved now, both ways. The backend comes first: what it says before it breaks is still relayed.
func (w *worker) move(s *session) {
	c, b := &s.ends[client], &s.ends[backend]
	broken := w.pump(s, b, c)
	if broken == nil && !w.stuck(s, b) {
		if broken = w.pump(s, c, b); broken == b {
			w.pump(s, b, c)
		}
	}
	if s.state == opening && (b.ended || broken == b) {
		if w.unanswered(s, broken == b) {
			return
		}
		if s.state = relaying; broken == nil { // an end that is passed on
			w.keepFlight(s)
			s.phase.stop()
			s.patience.stop()
			if broken = w.pump(s, b, c); broken == nil {
				broken = w.pump(s, c, b)
			}
		}
	}
	switch {
	case broken != nil && broken.vanished:
		w.finish(s, Vanished)
	case broken == c:
		w.end(s, ClientReset)
	case broken == b:
		w.finish(s, BackendReset)
	case c.ended && b.ended && c.empty() && b.empty():
		w.end(s, Done)
	}
}

// stuck says whether the backend has ended before its first byte: the client's bytes are for another one then.
func (w *worker) stuck(s *session, b *end) bool { return s.state == opening && b.ended }

// pump moves what can be moved from one end to the other. It returns the end that broke; nil: none.
func (w *worker) pump(s *session, from, to *end) *end {
	for budget := turnBytes; ; {
		if !from.empty() {
			if broken := w.flush(s, from, to); broken != nil || !from.empty() {
				return broken
			}
		}
		if from.ended {
			return w.passEnd(s, from, to)
		}
		if !from.readable {
			return nil
		}
		if budget <= 0 {
			w.again(s)
			return nil
		}
		n, broken := w.step(s, from, to)
		if broken != nil {
			return broken
		}
		budget -= n
	}
}

// step reads once and writes once.
func (w *worker) step(s *session, from, to *end) (int, *end) {
	if from.full >= fullBeforeSplice && (s.state == relaying || s.spoken) {
		if n, broken, ok := w.splice(s, from, to); ok {
			return n, broken
		}
	}
	buffer := w.buffer
	if w.chunks.held > maxHeld {
		buffer = buffer[:chunkSizes[0]]
	}
	n, err := tcp.Read(from.fd, buffer)
	switch {
	case errors.Is(err, tcp.ErrWouldBlock):
		from.readable = false
		return 0, nil
	case err != nil:
		return 0, from.fail(err)
	case n == 0:
		from.ended, from.readable = true, false
		return 0, nil
	case n < len(buffer) && !from.final:
		from.readable = false // whatever comes next is news (epoll(7), question 9)
	}
	from.fullness(n)
	w.account(s, from, buffer[:n])
	return n, w.write(s, from, to, buffer[:n])
}

// account notes that bytes were read.
func (w *worker) account(s *session, from *end, b []byte) {
	if s.state == opening {
		if from == &s.ends[client] {
			w.keep(s, b)
		} else {
			w.answered(s)
		}
	}
	w.counted(s, from, len(b))
}

func (w *worker) counted(s *session, from *end, n int) {
	from.bytes += uint64(n)
	from.last = w.now
	if from == &s.ends[client] {
		s.count.in.Add(uint64(n))
		return
	}
	s.count.out.Add(uint64(n))
	s.count.last.Store(w.now)
}

// write writes what there is room for, and keeps the rest.
func (w *worker) write(s *session, from, to *end, b []byte) *end {
	n := 0
	if to.writable {
		var err error
		n, err = tcp.Write(to.fd, b)
		if err != nil && !errors.Is(err, tcp.ErrWouldBlock) {
			return to.fail(err)
		}
		w.wrote(s, to)
	}
	if n < len(b) {
		to.writable = false
		from.chunk = w.chunks.take(len(b) - n)
		from.rest = from.chunk[:copy(from.chunk, b[n:])]
	}
	return nil
}

// flush writes what is left of earlier.
func (w *worker) flush(s *session, from, to *end) *end {
	if !to.writable {
		return nil
	}
	if from.pipe != nil {
		return w.flushPipe(s, from, to)
	}
	n, err := tcp.Write(to.fd, from.rest)
	if err != nil && !errors.Is(err, tcp.ErrWouldBlock) {
		return to.fail(err)
	}
	w.wrote(s, to)
	if from.rest = from.rest[n:]; len(from.rest) > 0 {
		to.writable = false
		return nil
	}
	w.release(from)
	return nil
}

// passEnd tells one end that the other will say no more. If that one has ended as well, closing both is about to say so.
func (w *worker) passEnd(s *session, from, to *end) *end {
	if to.shut || from.broken || to.broken || s.state == opening && from == &s.ends[backend] || to.ended && to.empty() {
		return nil
	}
	to.shut = true
	if err := tcp.ShutdownWrite(to.fd); err != nil {
		return to.fail(err)
	}
	w.wrote(s, to)
	if s.state == relaying || from == &s.ends[client] {
		w.halves.set(&s.phase, w.now+int64(w.relay.timing.Load().HalfClosed))
	}
	if s.state == opening && s.tls && s.patience.queue == nil { // nobody waits for a handshake that cannot go on
		w.patiences.set(&s.patience, w.now+int64(w.relay.timing.Load().Opening))
	}
	return nil
}

// halfClosed ends a session of which one side has ended long ago, unless the other one still speaks.
func (w *worker) halfClosed(s *session) {
	until := s.last() + int64(w.relay.timing.Load().HalfClosed)
	if until > w.now {
		w.halves.set(&s.phase, until)
		return
	}
	w.end(s, HalfClosedOld)
}

// discard throws away what comes after an orderly end, and closes when both sides have ended too.
func (w *worker) discard(s *session) {
	for i := range s.ends {
		e := &s.ends[i]
		for budget := turnBytes; e.readable && !e.ended && e.fd >= 0; {
			if budget <= 0 {
				w.again(s)
				break
			}
			n, err := tcp.Read(e.fd, w.buffer)
			if errors.Is(err, tcp.ErrWouldBlock) {
				e.readable = false
				break
			}
			e.ended = err != nil || n == 0
			budget -= n
		}
	}
	if b := &s.ends[backend]; s.ends[client].ended && (b.ended || b.fd < 0) {
		w.end(s, s.why)
	}
}
