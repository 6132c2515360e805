package loop

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"varco.dev/internal/kernel/tcp"
)

// maxBackends is how many backends' counts a loop keeps before it forgets those without sessions.
const maxBackends = 1024

// backendCount is what one loop knows of a backend. Its loop writes, everybody reads.
type backendCount struct {
	sessions atomic.Int64
	in, out  atomic.Uint64
	last     atomic.Int64 // since the relay's start; 0: never
	answered int64        // when it last began to answer a session of this loop, which alone reads it
}

// counts are those of Stats, of one loop.
type counts struct {
	accepted, overLimit, overSource, acceptErrors, retried, replayed, helloTimeouts, spliced atomic.Uint64

	in, out atomic.Uint64 // of backends that are forgotten
	ended   [reasons]atomic.Uint64
}

// backend returns the count of a backend.
func (w *worker) backend(at netip.AddrPort) *backendCount {
	if c := w.backends[at]; c != nil {
		return c
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.backends) >= maxBackends {
		w.forget()
	}
	c := &backendCount{}
	w.backends[at] = c
	return c
}

func (w *worker) forget() {
	for at, c := range w.backends {
		if c.sessions.Load() == 0 {
			w.stats.in.Add(c.in.Load())
			w.stats.out.Add(c.out.Load())
			delete(w.backends, at)
		}
	}
}

// End ends all sessions of a backend now, and returns how many they were. The backend is reset, and so is the client, unless
// it speaks TLS: then it sees an orderly end, after which Go's HTTP/2 client tries again. Clients that have had no byte from it yet get
// another backend where that is possible: what they have said is kept, or they have said nothing.
func (r *Relay) End(backend netip.AddrPort, reason string) int {
	var n atomic.Int64
	for _, w := range r.workers {
		w.ask(func() { n.Add(int64(w.endAll(backend))) })
	}
	if n.Load() > 0 {
		r.log.Info("ended the sessions of a backend", "backend", backend, "reason", reason, "sessions", n.Load())
	}
	return int(n.Load())
}

func (w *worker) endAll(at netip.AddrPort) int {
	n := 0
	for _, s := range w.table {
		if s.state == closed || s.count == nil || s.attempt.Backend != at {
			continue
		}
		n++
		w.leave(s)
	}
	return n
}

// leave ends the session, or gives it another backend.
func (w *worker) leave(s *session) {
	c := &s.ends[client]
	if s.state == connecting || s.state == opening && !c.ended && (len(s.flight) > 0 || c.bytes == 0) {
		if a, ok := w.pick(s); ok {
			w.change(s, a)
			return
		}
	}
	w.finish(s, EndedByCaller)
}

// betweenEvents is how long a backend is silent at least when it is not in the middle of something.
const betweenEvents = 5 * time.Millisecond

// candidate is a session that may be shed.
type candidate struct {
	worker *worker
	tag    uint64
	quiet  bool  // for Shed.Quiet
	last   int64 // when its last byte came, if it is; else when the client's last came
}

// before says which of two is shed first. Of those that are not quiet a client that says little is more likely one that
// only listens.
func (c candidate) before(other candidate) int {
	if c.quiet != other.quiet {
		if c.quiet {
			return -1
		}
		return 1
	}
	return cmp.Compare(c.last, other.last)
}

// Shed ends sessions in order (FIN to both sides), and returns how many: those that are quiet first, longest first, then those
// whose clients have been silent for longest.
func (r *Relay) Shed(how Shed) int {
	var all []candidate
	for _, w := range r.workers {
		found := make(chan []candidate, 1)
		w.ask(func() { found <- w.candidates(how) })
		select {
		case some := <-found:
			all = append(all, some...)
		default: // the loop has ended
		}
	}
	slices.SortFunc(all, candidate.before)
	n := 0
	for i := 0; i < len(all) && n < how.Most; i++ {
		if all[i].shed(how) {
			n++
		}
	}
	return n
}

func (c candidate) shed(how Shed) bool {
	var done atomic.Bool
	c.worker.ask(func() {
		if s := c.worker.find(c.tag); s != nil && c.worker.sheddable(s, how) && !s.hasNews() {
			c.worker.shed(s)
			done.Store(true)
		}
	})
	return done.Load()
}

func (w *worker) candidates(how Shed) []candidate {
	var out []candidate
	w.now = int64(time.Since(w.relay.start))
	for _, s := range w.table {
		if s.state == closed || !w.sheddable(s, how) {
			continue
		}
		c := candidate{w, s.tag(client), s.quiet(w.now, how), s.last()}
		if !c.quiet {
			c.last = max(s.since, s.ends[client].last)
		}
		out = append(out, c)
	}
	return out
}

// sheddable says whether nobody misses a session. One whose backend has ended is kept by a client that says nothing; one
// whose client has waits for an answer.
func (w *worker) sheddable(s *session, how Shed) bool {
	c, b := &s.ends[client], &s.ends[backend]
	if s.state != relaying || s.attempt.Backend != how.Backend || c.ended || !c.empty() || !b.empty() {
		return false
	}
	idle, spoken := w.now-s.last(), b.last >= c.last
	switch {
	case w.now-s.since < int64(how.Age):
		return false
	case s.quiet(w.now, how), how.Settled > 0 && spoken && idle >= int64(how.Settled):
		return true
	}
	return how.Listening > 0 && spoken && idle >= int64(betweenEvents) && w.now-c.last >= int64(how.Listening)
}

func (s *session) quiet(now int64, how Shed) bool {
	return how.Quiet > 0 && now-s.last() >= int64(how.Quiet)
}

// hasNews says whether something has come that the loop has not seen yet.
func (s *session) hasNews() bool {
	var b [1]byte
	for i := range s.ends {
		if s.ends[i].ended {
			continue
		}
		if _, err := tcp.Peek(s.ends[i].fd, b[:]); !errors.Is(err, tcp.ErrWouldBlock) {
			return true
		}
	}
	return false
}

// shed ends a session in order: both sides are told that no more will come, and what they say within a moment is thrown
// away. Closing at once could reset them, and what is on its way to the client would be lost.
func (w *worker) shed(s *session) {
	s.state, s.why = ending, ShedByCaller
	for i := range s.ends {
		s.ends[i].readable = true
		if err := tcp.ShutdownWrite(s.ends[i].fd); err != nil {
			s.ends[i].ended = true
		}
	}
	w.lingers.set(&s.phase, w.now+int64(DefaultLinger))
	w.discard(s)
}

// Traffic returns what goes to and from each backend that had a session.
func (r *Relay) Traffic() map[netip.AddrPort]Traffic {
	out := map[netip.AddrPort]Traffic{}
	for _, w := range r.workers {
		w.mu.Lock()
		for at, c := range w.backends {
			t := out[at]
			t.Sessions += int(c.sessions.Load())
			t.In += c.in.Load()
			t.Out += c.out.Load()
			if last := r.at(c.last.Load()); last.After(t.LastByte) {
				t.LastByte = last
			}
			out[at] = t
		}
		w.mu.Unlock()
	}
	return out
}

// at turns a loop's time into one of the clock's.
func (r *Relay) at(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return r.start.Add(time.Duration(ns))
}

// LastByte returns when a byte last came from a backend; zero: never.
func (r *Relay) LastByte(backend netip.AddrPort) time.Time {
	last := int64(0)
	for _, w := range r.workers {
		w.mu.Lock()
		if c := w.backends[backend]; c != nil {
			last = max(last, c.last.Load())
		}
		w.mu.Unlock()
	}
	return r.at(last)
}

// Stats returns the counts.
func (r *Relay) Stats() Stats {
	s := Stats{Open: int(r.open.Load()), Ended: map[Reason]uint64{}}
	for _, w := range r.workers {
		c := &w.stats
		s.Accepted += c.accepted.Load()
		s.OverLimit += c.overLimit.Load()
		s.OverSource += c.overSource.Load()
		s.AcceptErrors += c.acceptErrors.Load()
		s.Retried += c.retried.Load()
		s.Replayed += c.replayed.Load()
		s.HelloTimeouts += c.helloTimeouts.Load()
		s.Spliced += c.spliced.Load()
		s.In += c.in.Load()
		s.Out += c.out.Load()
		for why := range reasons {
			s.Ended[why] += c.ended[why].Load()
		}
	}
	for _, t := range r.Traffic() {
		s.In += t.In
		s.Out += t.Out
	}
	return s
}

// Sessions returns at most so many of the sessions, in no order.
func (r *Relay) Sessions(most int) []Session {
	var out []Session
	for _, w := range r.workers {
		found := make(chan []Session, 1)
		left := most - len(out)
		w.ask(func() { found <- w.sessions(left) })
		select {
		case some := <-found:
			out = append(out, some...)
		default: // the loop has ended
		}
	}
	return out
}

func (w *worker) sessions(most int) []Session {
	var out []Session
	for _, s := range w.table {
		if len(out) >= most {
			break
		}
		if s.state == closed {
			continue
		}
		out = append(out, Session{
			Client: s.who.Addr, Backend: s.attempt.Backend, Listener: s.who.Listener, State: stateNames[s.state],
			Since: w.relay.at(s.since), Idle: time.Duration(max(0, w.now-s.last())), In: s.ends[client].bytes, Out: s.ends[backend].bytes,
		})
	}
	return out
}
