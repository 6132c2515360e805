package loop

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"varco.dev/internal/kernel/tcp"
)

const (
	eventBatch = 256      // news taken from the kernel at once
	bufferSize = 64 << 10 // that of a loop
	// fullBatches is after how many batches, if there is always more news, timers count all the same.
	fullBatches = 64
	turnBytes   = 256 << 10 // what one direction may move before it is another session's turn
	tickEvery   = time.Second
	// waitBriefly is for how long a loop waits without telling Go's scheduler, which is for ever under load, if the rest of
	// the process has a P of its own: the scheduler would take the loop's away, and give it back, at every message. Measured
	// on 2 busy cores with 128 bytes back and forth, in thousands a second and µs of CPU for each:
	//
	//	connections                                      1        32       256
	//	this                                        25 / 17   45 / 12   43 / 11
	//	a blocking epoll_wait                       20 / 20   38 / 14   33 / 13
	//	Go's netpoller waiting for the epoll set    14 / 20   34 / 11   29 / 13
	//
	// A millisecond would cost 3 µs more: the kernel then sets the machine's timer for each wait, as its next tick is later.
	waitBriefly = 10 * time.Millisecond
	wakerTag    = 0 // listeners begin at 1
)

// worker is one event loop: what it owns is touched by its goroutine alone, but for what says otherwise.
type worker struct {
	relay  *Relay
	log    *slog.Logger
	poller *tcp.Poller
	waker  *tcp.Waker
	now    int64 // since the relay's start; read once a turn

	listeners map[uint32]*listening
	table     []*session // by index
	free      []*session
	ready     []uint64      // tags of those that go on without news
	spare     []uint64      // the same, empty
	young     []uint64      // those whose backends get their options at the next tick
	dirty     []uint64      // those with bytes that may not be acknowledged
	nextTick  int64         // 0: nobody needs one
	brief     time.Duration // waitBriefly, or 0
	stopped   bool

	slow, connects, hellos, patiences, halves, lingers queue

	buffer  []byte
	chunks  chunks
	pipes   pipes
	flights [][]byte

	count atomic.Int64 // sessions
	stats counts

	mu       sync.Mutex // guards the fields below
	mail     []func()
	dead     bool                             // it reads no more mail
	backends map[netip.AddrPort]*backendCount // written by the loop alone, which reads it without the lock
	gone     chan struct{}                    // closed when the loop has ended
}

func newWorker(r *Relay) *worker {
	w := &worker{relay: r, log: r.log, listeners: map[uint32]*listening{}, buffer: make([]byte, bufferSize),
		backends: map[netip.AddrPort]*backendCount{}, gone: make(chan struct{})}
	for _, q := range w.queues() {
		q.open()
	}
	return w
}

func (w *worker) queues() [6]*queue {
	return [6]*queue{&w.slow, &w.connects, &w.hellos, &w.patiences, &w.halves, &w.lingers}
}

// open opens the descriptors that a loop has of its own.
func (w *worker) open() (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.poller, err = tcp.OpenPoller(); err != nil {
		return err
	}
	waker, err := tcp.OpenWaker()
	if err != nil {
		w.poller.Close()
		return err
	}
	if err = w.poller.AddWaker(waker, wakerTag); err != nil {
		w.poller.Close()
		waker.Close()
		return err
	}
	w.waker = waker // from now on there is mail
	return nil
}

func (w *worker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	w.poller.Close()
	w.waker.Close()
}

// run is the loop.
func (w *worker) run() {
	defer close(w.gone)
	events := make([]tcp.Event, eventBatch)
	for full := 1; !w.stopped; full++ {
		before := w.now
		n, err := w.wait(events)
		if err != nil {
			w.log.Error("an event loop fails", "error", err)
			break
		}
		w.now = int64(time.Since(w.relay.start))
		for i := range events[:n] {
			w.dispatch(&events[i])
		}
		w.goOn()
		if n < len(events) || full >= fullBatches {
			w.expire(before)
			full = 0
		}
	}
	w.stopAll()
}

func (w *worker) stopAll() {
	w.mu.Lock()
	w.dead = true
	w.mu.Unlock()
	w.readMail() // it may hold connections
	for _, s := range w.table {
		if s.state != closed {
			w.end(s, Stopped)
		}
	}
	w.pipes.closeAll()
}

// wait waits for news, or for the next timer.
func (w *worker) wait(events []tcp.Event) (int, error) {
	if len(w.ready) > 0 {
		return w.poller.Briefly(events, 0)
	}
	most := w.untilNext()
	brief := w.brief
	if most >= 0 {
		brief = min(brief, most)
	}
	if brief > 0 {
		if n, err := w.poller.Briefly(events, brief); n > 0 || err != nil || brief == most {
			return n, err
		}
	}
	return w.poller.Wait(events, most)
}

func (w *worker) untilNext() time.Duration {
	next := int64(-1)
	for _, q := range w.queues() {
		if at, ok := q.first(); ok && (next < 0 || at < next) {
			next = at
		}
	}
	if w.nextTick > 0 && (next < 0 || w.nextTick < next) {
		next = w.nextTick
	}
	for _, l := range w.listeners {
		if l.resume > 0 && (next < 0 || l.resume < next) {
			next = l.resume
		}
	}
	if next < 0 {
		return -1
	}
	return max(0, time.Duration(next-int64(time.Since(w.relay.start))))
}

func (w *worker) dispatch(e *tcp.Event) {
	tag := e.Tag()
	if tag>>32 == 0 {
		if tag == wakerTag {
			w.waker.Clear()
			w.readMail()
		} else if l := w.listeners[uint32(tag)]; l != nil {
			w.accept(l)
		}
		return
	}
	if s := w.find(tag); s != nil {
		w.news(s, int(tag&1), e.What())
	}
}

// news is what the kernel tells of one end of a session.
func (w *worker) news(s *session, side int, what uint32) {
	s.ends[side].note(what)
	switch s.state {
	case header:
		w.readHeader(s)
	case connecting:
		switch {
		case side == backend:
			w.connectNews(s, what)
		case what&tcp.Broken != 0:
			w.end(s, ClientReset)
		}
	case opening, relaying:
		w.move(s)
	case ending:
		w.discard(s)
	}
}

// again has a session go on in the next turn.
func (w *worker) again(s *session) {
	if !s.queued {
		s.queued = true
		w.ready = append(w.ready, s.tag(client))
	}
}

// goOn continues what was interrupted for the sake of others.
func (w *worker) goOn() {
	if len(w.ready) == 0 {
		return
	}
	tags := w.ready
	w.ready = w.spare[:0]
	for _, tag := range tags {
		if s := w.find(tag); s != nil {
			s.queued = false
			w.news(s, client, 0)
		}
	}
	w.spare = tags[:0]
}

// expire looks after everything whose time had come before the kernel was asked for all the news there was. So what came in
// time counts, even if this process, and not its peers, was late: it may have been stopped, or its host be busy.
func (w *worker) expire(before int64) {
	w.slow.expire(before, w.slowly)
	w.connects.expire(before, func(s *session) { w.failed(s, errTimeout) })
	w.hellos.expire(before, w.silent)
	w.patiences.expire(before, func(s *session) { w.end(s, OpeningSlow) })
	w.halves.expire(before, w.halfClosed)
	w.lingers.expire(before, func(s *session) { w.end(s, s.why) })
	for _, l := range w.listeners {
		if l.resume > 0 && l.resume <= before {
			w.watchListener(l)
		}
	}
	if w.nextTick > 0 && w.nextTick <= before {
		w.tick()
	}
}

var errTimeout = errors.New("it did not answer in time")

// post has the loop call fn soon; false: it has ended.
func (w *worker) post(fn func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.waker == nil {
		return false
	}
	w.mail = append(w.mail, fn)
	if len(w.mail) == 1 {
		if err := w.waker.Wake(); err != nil {
			w.log.Error("cannot wake an event loop", "error", err)
		}
	}
	return true
}

// ask has the loop call fn and waits for that; it returns at once if the loop has ended or has not begun.
func (w *worker) ask(fn func()) {
	done := make(chan struct{})
	if !w.post(func() { fn(); close(done) }) {
		return
	}
	select {
	case <-done:
	case <-w.gone:
	}
}

func (w *worker) readMail() {
	w.mu.Lock()
	mail := w.mail
	w.mail = nil
	w.mu.Unlock()
	for _, fn := range mail {
		fn()
	}
}
