package loop

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"varco.dev/internal/kernel/tcp"
	"varco.dev/internal/relay/proxyheader"
)

// slowConnect is after how long a connect is not one within the cluster's network.
const slowConnect = 20 * time.Millisecond

// admit makes a session of a connection, which has a slot and is counted as one of this loop.
func (w *worker) admit(l *listener, fd int, peer netip.AddrPort) {
	s := w.fresh()
	s.state, s.listener, s.since = connecting, l, w.now
	s.ends = [2]end{client: {fd: fd, writable: true}, backend: {fd: -1}}
	s.who = Client{Addr: peer, Peer: peer, Local: l.local, Listener: l.Name}
	w.patiences.set(&s.patience, w.now+int64(w.relay.timing.Load().Opening))
	if len(l.ProxyFrom) > 0 && l.wantsHeader(peer.Addr()) {
		s.state = header
		w.watch(s, client)
		return
	}
	w.enter(s)
}

// watch has the loop told of one end; false: the session is over.
func (w *worker) watch(s *session, side uint32) bool {
	e := &s.ends[side]
	if e.watched {
		return true
	}
	if err := w.poller.AddConn(e.fd, s.tag(side)); err != nil {
		w.trouble(s, err)
		return false
	}
	e.watched = true
	return true
}

// trouble ends a session because the kernel has no room.
func (w *worker) trouble(s *session, err error) {
	if w.relay.seldom() {
		w.log.Warn("cannot relay a connection", "client", s.who.Addr, "error", err)
	}
	w.end(s, Failed)
}

// readHeader looks whether the PROXY header is whole. It is left in the socket until it is: there is nothing to keep.
func (w *worker) readHeader(s *session) {
	c := &s.ends[client]
	n, err := tcp.Peek(c.fd, w.buffer[:proxyheader.Max])
	if errors.Is(err, tcp.ErrWouldBlock) {
		return
	}
	if err != nil {
		w.end(s, ClientReset)
		return
	}
	h, size, err := proxyheader.Parse(w.buffer[:n])
	switch {
	case errors.Is(err, proxyheader.ErrIncomplete) && !c.final:
		return
	case err != nil:
		w.log.Debug("a connection has no valid PROXY header", "peer", s.who.Peer, "error", err)
		w.end(s, BadHeader)
		return
	}
	if _, err := tcp.Read(c.fd, w.buffer[:size]); err != nil {
		w.end(s, ClientReset)
		return
	}
	if h.Local {
		s.who.Local, _ = tcp.Local(c.fd)
	} else {
		s.who.Addr, s.who.Local = h.Source, h.Destination
	}
	s.state = connecting
	w.enter(s)
}

// enter begins to connect for a client that is known.
func (w *worker) enter(s *session) {
	if most := w.relay.limits.Load().PerSource; most > 0 {
		if s.counted = w.relay.sources.take(sourceOf(s.who.Addr.Addr()), most); !s.counted {
			w.stats.overSource.Add(1)
			if w.relay.seldom() {
				w.log.Warn("too many connections of one source, some are turned away", "source", s.who.Addr.Addr(), "most", most)
			}
			w.end(s, OverSource)
			return
		}
	}
	if s.listener.ProxyTo && s.who.Local.Addr().IsUnspecified() {
		s.who.Local, _ = tcp.Local(s.ends[client].fd)
	}
	w.connect(s)
}

// pick asks for a backend that was not tried.
func (w *worker) pick(s *session) (Attempt, bool) {
	if len(s.tried) >= DefaultTries || len(s.tried) > 0 && w.now-s.since > int64(w.relay.timing.Load().Opening) {
		return Attempt{}, false
	}
	return w.relay.balancer.Pick(s.who, s.tried)
}

// connect tries backends until the kernel is busy connecting to one.
func (w *worker) connect(s *session) {
	for {
		a, ok := w.pick(s)
		if !ok {
			w.log.Debug("no backend for a connection", "client", s.who.Addr, "tried", len(s.tried))
			w.end(s, NoBackend)
			return
		}
		if w.dial(s, a) {
			return
		}
	}
}

// dial begins an attempt; false: it has failed already, and another may be made.
func (w *worker) dial(s *session, a Attempt) bool {
	if len(s.tried) > 0 {
		w.stats.retried.Add(1)
	}
	s.attempt, s.count = a, w.backend(a.Backend)
	s.count.sessions.Add(1)
	s.tried = append(s.tried, a.Backend)
	s.state = connecting
	fd, err := tcp.Connect(a.Backend)
	if err != nil {
		if exhausted(err) {
			w.trouble(s, err)
			return true
		}
		s.report(eventOf(err))
		w.drop(s, false)
		return false
	}
	s.ends[backend] = end{fd: fd}
	if w.watch(s, backend) {
		w.slow.set(&s.phase, w.now+int64(slowConnect))
	}
	return true
}

// slowly goes on waiting for a backend that does not answer as fast as most. The loop is told of the client from now on: it
// may give up.
func (w *worker) slowly(s *session) {
	if w.watch(s, client) {
		w.connects.set(&s.phase, w.now+max(0, int64(w.relay.timing.Load().Connect-slowConnect)))
	}
}

// exhausted says that this machine, and not the backend, is why there is no connection.
func exhausted(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func eventOf(err error) Event {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return Refused
	}
	return Unreachable
}

// connectNews is what the kernel tells of a backend that is being connected to.
func (w *worker) connectNews(s *session, what uint32) {
	switch {
	case what&(tcp.Broken|tcp.HungUp) != 0:
		err := tcp.Failure(s.ends[backend].fd)
		if err == nil {
			err = syscall.ECONNRESET
		}
		w.failed(s, err)
	case what&tcp.Writable != 0:
		w.connected(s)
	}
}

// failed tries the next backend after one that could not be reached.
func (w *worker) failed(s *session, err error) {
	w.log.Debug("cannot connect to a backend", "backend", s.attempt.Backend, "error", err)
	s.phase.stop()
	s.report(eventOf(err))
	w.drop(s, false)
	w.connect(s)
}

// connected begins to relay. Unless it took long, only now is the loop told of the client: what it has said meanwhile comes as one piece of news.
func (w *worker) connected(s *session) {
	s.phase.stop()
	s.state = opening
	s.report(Connected)
	w.young = append(w.young, s.tag(backend))
	w.needTick()
	c := &s.ends[client]
	var first []byte
	if s.listener.ProxyTo {
		first = proxyheader.Append(nil, s.who.Addr, s.who.Local)
	}
	if len(s.flight) > 0 {
		w.stats.replayed.Add(1)
		first = append(first, s.flight...)
		if s.whole {
			w.hellos.set(&s.phase, w.now+int64(w.relay.timing.Load().Hello))
		}
	}
	c.rest = first
	if !w.watch(s, client) {
		return
	}
	if len(first) > 0 || c.readable || s.ends[backend].readable { // news of which has come already
		w.move(s)
	}
}
