package loop

import (
	"time"

	"varco.dev/internal/kernel/tcp"
)

// heardLately is what a peer that is there is heard within, while bytes wait for it.
const heardLately = 2 * time.Second

// needTick has the loop look after the sessions that need it in a second.
func (w *worker) needTick() {
	if w.nextTick == 0 {
		w.nextTick = w.now + int64(tickEvery)
	}
}

// wrote notes that an end was sent something.
func (w *worker) wrote(s *session, to *end) {
	to.unacked = true
	if !s.dirty {
		s.dirty = true
		w.dirty = append(w.dirty, s.tag(client))
		w.needTick()
	}
}

// tick comes once a second as long as a session needs it: an idle one does not.
func (w *worker) tick() {
	w.nextTick = 0
	w.setUp()
	w.watchdog()
	w.pipes.trim()
	if w.chunks.trim() || len(w.dirty) > 0 || len(w.young) > 0 || w.pipes.open > 0 {
		w.needTick()
	}
}

// setUp gives connections that have lived for a second the options that shorter ones need not have: calls that most of a
// busy balancer's never make. Those of clients may have theirs from the listener, unless they waited there before it was
// taken over, or it is one of MPTCP, which Go listens for unless it is told not to.
func (w *worker) setUp() {
	t := w.relay.timing.Load()
	for _, tag := range w.young {
		s := w.find(tag)
		if s == nil || s.ends[backend].fd < 0 {
			continue
		}
		of := s.idles(t)
		setClient(s.ends[client].fd, of[client]) // what cannot be set is broken, which is news
		setProbes(s.ends[backend].fd, of[backend])
	}
	w.young = w.young[:0]
}

// idles returns after how long without a packet each end is probed: from once to twice the time, by session. The probes of
// thousands of sessions that began together would come together, and the kernel would drop so many (netdev_max_backlog) that
// live ones count as gone.
func (s *session) idles(t *Timing) (of [2]time.Duration) {
	for side, idle := range [2]time.Duration{client: clientsProbe * t.KeepAlive, backend: t.KeepAlive} {
		of[side] = idle + time.Duration(s.index%max(1, uint32(idle/time.Second)))*time.Second // TCP_KEEPIDLE has seconds
	}
	return of
}

// watchdog looks at the sessions with bytes that may not be acknowledged.
func (w *worker) watchdog() {
	tags := w.dirty
	w.dirty = w.dirty[:0]
	for _, tag := range tags {
		s := w.find(tag)
		if s == nil {
			continue
		}
		of := s.idles(w.relay.timing.Load())
		if w.inspect(&s.ends[client], of[client]) {
			w.end(s, Vanished)
			continue
		}
		gone := w.inspect(&s.ends[backend], of[backend])
		switch s.dirty = s.ends[client].unacked || s.ends[backend].unacked; {
		case gone:
			w.finish(s, Vanished)
		case s.dirty:
			w.dirty = append(w.dirty, tag)
		}
	}
}

// inspect asks the kernel whether an end has acknowledged all, and returns whether it is gone. One that has acknowledged
// nothing for a second gets Timing.UserTimeout as its TCP_USER_TIMEOUT, counted from when the kernel sent what is missing,
// until it has. It would also end one whose peer is well but does not read for a while, as that of `kubectl logs | less`: it
// is lifted as long as the peer says that its window is closed, and the probes are counted here.
func (w *worker) inspect(e *end, idle time.Duration) (gone bool) {
	if !e.unacked || e.fd < 0 || !e.lifted && !e.hurried && w.now-e.last < int64(tickEvery) {
		return false // what speaks is there
	}
	i, err := tcp.GetInfo(e.fd)
	if err != nil {
		return false
	}
	full := *w.relay.timing.Load()
	closed := i.Unacked == 0 && i.Unsent > 0
	switch {
	case closed && e.lifted:
		return i.Probes >= probes && i.Heard > full.UserTimeout
	case closed && i.Heard < max(heardLately, full.UserTimeout):
		e.lifted, e.hurried = tcp.SetUserTimeout(e.fd, 0) == nil, false
		tcp.SetRetransmitMost(e.fd, probeEvery) // where the kernel has it, a peer that vanishes now is noticed as soon
	case i.Unacked > 0 && i.Heard >= tickEvery && !e.hurried:
		e.hurried = tcp.SetUserTimeout(e.fd, full.UserTimeout) == nil
		e.lifted = e.lifted && !e.hurried
	case !closed && (e.lifted || e.hurried && (i.Unacked == 0 || i.Heard < tickEvery)):
		if tcp.SetUserTimeout(e.fd, patience(idle)) == nil {
			e.lifted, e.hurried = false, false
		}
	}
	e.unacked = e.lifted || e.hurried || i.Unacked > 0 || i.Unsent > 0
	return false
}
