package loop

// maxFlight is how much of a client's first flight is kept. A ClientHello has 0.3 to 2 KiB.
const maxFlight = 16 << 10

// helloSize returns how long the record of a ClientHello is that b begins (RFC 8446, 4 and 5.1); 0: there is too little of
// it to tell; false: b is none, or one that goes on in a second record.
func helloSize(b []byte) (size int, ok bool) {
	const (
		head      = 5 // of a record: type, version, length
		body      = 4 // of a handshake message: type, length
		handshake = 0x16
		major     = 0x03
		hello     = 1
	)
	if b[0] != handshake || len(b) > 1 && b[1] != major || len(b) > head && b[head] != hello {
		return 0, false
	}
	if len(b) < head+body {
		return 0, true
	}
	record, message := int(b[3])<<8|int(b[4]), int(b[6])<<16|int(b[7])<<8|int(b[8])
	return head + record, record == body+message
}

// keep keeps what the client has said to a backend that has not answered, up to its whole ClientHello. From then on the
// backend has to answer. Of half of one it cannot: who says Silent or Broken of it would let any client, who need not be
// known to anybody, speak ill of any backend. What follows before the answer is early data, which may have been obeyed: it
// is not sent twice (RFC 8446, 8).
func (w *worker) keep(s *session, b []byte) {
	if s.spoken {
		return
	}
	if s.flight == nil {
		s.flight = w.freshFlight()
	}
	size, ok := 0, len(s.flight)+len(b) <= maxFlight
	if ok {
		s.flight = append(s.flight, b...)
		size, ok = helloSize(s.flight)
	}
	s.tls = s.tls || ok
	s.whole = s.whole || ok && size > 0 && len(s.flight) >= size
	switch {
	case !ok, size > 0 && len(s.flight) > size:
		w.keepFlight(s)
		s.spoken = true
		s.phase.stop()
		s.patience.stop()
	case len(s.flight) == size:
		s.patience.stop()
		w.hellos.set(&s.phase, w.now+int64(w.relay.timing.Load().Hello))
	}
}

// answered is the backend's first byte.
func (w *worker) answered(s *session) {
	s.state = relaying
	s.phase.stop()
	s.patience.stop()
	w.keepFlight(s)
	if s.ends[client].ended {
		w.halves.set(&s.phase, w.now+int64(w.relay.timing.Load().HalfClosed))
	}
	s.count.answered = w.now
	s.report(Answered)
}

// silent is a backend that has not answered the beginning of a handshake in time. If it has answered others meanwhile it is
// busy, and has this one to do as well: another backend would be given the same work once more, and soon all of them, when all
// clients of a cluster come back together. If there is no other it may go on.
func (w *worker) silent(s *session) {
	if hello := int64(w.relay.timing.Load().Hello); s.count.answered > 0 && w.now-s.count.answered < hello {
		w.hellos.set(&s.phase, w.now+hello)
		return
	}
	w.stats.helloTimeouts.Add(1)
	s.report(Silent)
	if s.ends[client].ended {
		return
	}
	if a, ok := w.pick(s); ok {
		w.change(s, a)
	}
}

// change gives a client that has no answer yet another backend.
func (w *worker) change(s *session, a Attempt) {
	s.phase.stop()
	c := &s.ends[client]
	w.release(c)
	c.rest, c.shut = nil, false
	w.drop(s, false)
	if !w.dial(s, a) {
		w.connect(s)
	}
}

// unanswered is a backend that ends or breaks the connection before its first byte; false: that is to be passed on.
func (w *worker) unanswered(s *session, broken bool) bool {
	c := &s.ends[client]
	if !c.ended && (s.whole || broken && c.bytes == 0) { // anything else may be the client's fault
		s.report(Broken)
	}
	kept := len(s.flight) > 0 || broken && c.bytes == 0
	if c.ended || !kept {
		return false
	}
	a, ok := w.pick(s)
	if !ok {
		w.end(s, NoBackend)
		return true
	}
	w.change(s, a)
	return true
}

const maxFlights = 64 // buffers that are kept for flights to come

func (w *worker) freshFlight() []byte {
	if n := len(w.flights); n > 0 {
		b := w.flights[n-1]
		w.flights = w.flights[:n-1]
		return b
	}
	return nil
}

// keepFlight puts the buffer of a flight that is not needed any more aside.
func (w *worker) keepFlight(s *session) {
	if s.flight != nil && len(w.flights) < maxFlights {
		w.flights = append(w.flights, s.flight[:0])
	}
	s.flight = nil
}
