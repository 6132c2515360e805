package loop

import (
	"errors"
	"net/netip"
	"syscall"

	"varco.dev/internal/kernel/tcp"
)

// state is where a session is: the picture is in the package's comment.
type state uint8

const (
	closed state = iota
	header
	connecting
	opening
	relaying
	ending
)

var stateNames = [...]string{"closed", "header", "connecting", "opening", "relaying", "ending"}

// The ends of a session.
const (
	client  = 0
	backend = 1
)

// session is a client and its backend. It belongs to one loop, and has no buffer as long as nothing is blocked.
type session struct {
	ends  [2]end
	index uint32 // in the loop's table
	gen   uint32 // tells it from sessions that had the same place: what the kernel still says of those is not for it
	state state

	counted bool   // in the count of its source
	queued  bool   // in the loop's list of those that are ready
	dirty   bool   // in the loop's list of those with bytes that may not be acknowledged
	spoken  bool   // the client has: nothing more is kept of its flight
	whole   bool   // its first flight has a whole ClientHello: the backend has to answer
	tls     bool   // its first bytes are those of a TLS handshake
	why     Reason // for which a session is ending

	who      Client
	listener *listener
	attempt  Attempt
	count    *backendCount
	tried    []netip.AddrPort
	// flight is what the client has sent, as long as it can be sent to another backend: it is the beginning of a TLS
	// handshake, and the backend has not said a byte.
	flight []byte
	since  int64

	patience timer // until the first byte
	phase    timer // connect, hello, half-closed or linger
}

// end is one of the two connections, and what was read from it.
type end struct {
	fd       int  // -1: there is none
	watched  bool // the loop is told of it
	readable bool // there may be bytes to read
	writable bool // there may be room to write
	final    bool // it has ended or broken: reading goes on to the last
	ended    bool // all was read
	shut     bool // it was told that no more will come
	unacked  bool // something was written of which nobody knows whether it arrived
	broken   bool // a call has failed: the kernel tells the error once, and of an orderly end from then on
	vanished bool // it is broken because TCP_USER_TIMEOUT or probes have ended it
	lifted   bool // it has no TCP_USER_TIMEOUT for now
	hurried  bool // it has Timing.UserTimeout for now
	full     uint8

	rest  []byte // read and not yet written to the other end
	chunk []byte // whole buffer of the rest; nil: it belongs to somebody else
	pipe  *pipe  // instead of a rest
	bytes uint64 // that were read
	last  int64  // when the last of these came
}

func (e *end) empty() bool { return len(e.rest) == 0 && e.pipe == nil }

// fail notes that a call has failed.
func (e *end) fail(err error) *end {
	e.broken, e.vanished = true, errors.Is(err, syscall.ETIMEDOUT)
	return e
}

// note takes in what the kernel tells.
func (e *end) note(what uint32) {
	if what&(tcp.Readable|tcp.PeerDone|tcp.HungUp|tcp.Broken) != 0 {
		e.readable = true
	}
	if what&(tcp.PeerDone|tcp.HungUp|tcp.Broken) != 0 {
		e.final = true
	}
	if what&(tcp.Writable|tcp.HungUp|tcp.Broken) != 0 {
		e.writable = true
	}
}

// tag names one end to the kernel, and that of the backend also the attempt: what is still said of the connection before is
// not for this one. Listeners have tags with generation 0.
func (s *session) tag(side uint32) uint64 {
	attempt := uint32(0)
	if side == backend {
		attempt = uint32(len(s.tried)) & (1<<attemptBits - 1)
	}
	return uint64(s.gen)<<32 | uint64((s.index<<attemptBits|attempt)<<1|side)
}

// attemptBits are enough to count to DefaultTries.
const attemptBits = 3

// report tells of an event.
func (s *session) report(e Event) {
	if s.attempt.Report != nil {
		s.attempt.Report(e)
	}
}

// last is when the last byte came, from either side.
func (s *session) last() int64 { return max(s.since, s.ends[client].last, s.ends[backend].last) }

// find returns the session of a tag; nil: it is over.
func (w *worker) find(tag uint64) *session {
	index, gen := uint32(tag)>>(attemptBits+1), uint32(tag>>32)
	if int(index) >= len(w.table) {
		return nil
	}
	if s := w.table[index]; s.gen == gen && s.state != closed && tag == s.tag(uint32(tag)&1) {
		return s
	}
	return nil
}

// fresh returns a session with nothing but a place in the table.
func (w *worker) fresh() *session {
	if n := len(w.free); n > 0 {
		s := w.free[n-1]
		w.free = w.free[:n-1]
		return s
	}
	s := &session{index: uint32(len(w.table)), gen: 1}
	s.patience.session, s.phase.session = s, s
	w.table = append(w.table, s)
	return s
}

// recycle gives the place of a session to the next one.
func (w *worker) recycle(s *session) {
	gen := s.gen + 1
	if gen == 0 { // that of listeners
		gen = 1
	}
	*s = session{index: s.index, gen: gen, tried: s.tried[:0]}
	s.patience.session, s.phase.session = s, s
	w.free = append(w.free, s)
}

// finish ends a session. Where it is not the client's fault, and TLS tells the client that this is not all there was, the
// client sees an orderly end: Go's HTTP/2 client, if it meets a reset while it writes, returns an error that client-go does
// not take for one of the network, and does not retry (60 of 362 requests when a cable was cut; with an orderly end: none).
func (w *worker) finish(s *session, why Reason) {
	c := &s.ends[client]
	if !s.tls || s.state != relaying || c.broken || c.ended || tcp.ShutdownWrite(c.fd) != nil {
		w.end(s, why)
		return
	}
	w.drop(s, false)
	s.state, s.why = ending, why
	c.readable = true
	w.lingers.set(&s.phase, w.now+int64(DefaultLinger))
	w.discard(s)
}

// end ends a session for good: in order if both sides have said all, or were told so; with a reset otherwise, as neither
// may take what it has for all there was.
func (w *worker) end(s *session, why Reason) {
	orderly := why == Done || why == ShedByCaller
	w.drop(s, orderly)
	if c := &s.ends[client]; c.fd >= 0 {
		hangUp(c.fd, orderly || s.state == ending || why == Stopped && s.tls)
		c.fd = -1
	}
	w.release(&s.ends[client])
	w.keepFlight(s)
	s.patience.stop()
	s.phase.stop()
	if s.counted {
		w.relay.sources.give(sourceOf(s.who.Addr.Addr()))
	}
	w.stats.ended[why].Add(1)
	w.count.Add(-1)
	w.relay.open.Add(-1)
	s.state = closed
	w.recycle(s)
}

// drop leaves the backend, if there is one.
func (w *worker) drop(s *session, orderly bool) {
	if s.count == nil {
		return
	}
	if b := &s.ends[backend]; b.fd >= 0 {
		hangUp(b.fd, orderly)
	}
	w.release(&s.ends[backend])
	s.ends[backend] = end{fd: -1}
	s.count.sessions.Add(-1)
	s.count = nil
	s.report(Ended)
	s.attempt = Attempt{}
}

func hangUp(fd int, orderly bool) {
	if orderly {
		tcp.Close(fd)
	} else {
		tcp.Reset(fd)
	}
}
