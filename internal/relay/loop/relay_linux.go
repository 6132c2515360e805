package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"varco.dev/internal/kernel/tcp"
)

// logEvery is how often the log tells of the same trouble.
const logEvery = time.Minute

// drainPoll is how often Drain looks for sessions that are left.
const drainPoll = 20 * time.Millisecond

// Relay relays. All methods are safe for concurrent use, but not from within Balancer.Pick and Attempt.Report.
type Relay struct {
	balancer Balancer
	log      *slog.Logger
	workers  []*worker
	start    time.Time // what the loops count nanoseconds from

	limits  atomic.Pointer[Limits]
	timing  atomic.Pointer[Timing]
	open    atomic.Int64 // sessions, of all loops
	sources sources
	told    atomic.Int64 // when the log last told of a limit, since start

	mu        sync.Mutex // guards the fields below
	state     runState
	listeners map[string]*listener
	lastID    uint32 // of a listener
}

type runState uint8

const (
	isNew runState = iota
	isRunning
	hasEnded
)

// errEnded is the answer of a relay that runs no more.
var errEnded = errors.New("the relay has ended")

// New returns a relay that does nothing before Run.
func New(c Config) *Relay {
	r := &Relay{balancer: c.Balancer, log: c.Log, start: time.Now(), listeners: map[string]*listener{}}
	r.SetLimits(c.Limits)
	r.SetTiming(c.Timing)
	for range orDefault(c.Workers, runtime.GOMAXPROCS(0)) {
		r.workers = append(r.workers, newWorker(r))
	}
	return r
}

// Run relays until the context ends: then the listeners are closed, all sessions are reset (clients that speak TLS see an orderly end), and it returns nil. It is
// called once.
func (r *Relay) Run(ctx context.Context) error {
	if err := r.begin(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, r.stop)
	defer stop()
	var loops sync.WaitGroup
	for _, w := range r.workers {
		loops.Go(w.run)
	}
	loops.Wait()
	r.finish()
	return nil
}

// begin opens what the loops need and hands them the listeners that there are.
func (r *Relay) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != isNew {
		return errors.New("a relay runs once")
	}
	for i, w := range r.workers {
		if err := w.open(); err != nil {
			r.over(r.workers[:i])
			return fmt.Errorf("begin to relay: %w", err)
		}
		if len(r.workers) < runtime.GOMAXPROCS(0) {
			w.brief = waitBriefly
		}
	}
	r.state = isRunning
	for _, l := range r.listeners {
		r.handOut(l)
	}
	return nil
}

func (r *Relay) handOut(l *listener) {
	for _, w := range r.workers {
		w.post(func() { w.addListener(l) })
	}
}

func (r *Relay) stop() {
	for _, w := range r.workers {
		w.post(func() { w.stopped = true })
	}
}

func (r *Relay) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over(r.workers)
}

// over closes all listeners, and what some loops have opened.
func (r *Relay) over(opened []*worker) {
	r.state = hasEnded
	for name, l := range r.listeners {
		tcp.Close(l.fd)
		delete(r.listeners, name)
	}
	for _, w := range opened {
		w.close()
	}
}

// Listen takes in clients at a listener, now or as soon as Run is called. If it fails the listener is closed.
func (r *Relay) Listen(l Listener) error {
	local := addrPort(l.Net.Addr())
	fd, err := tcp.Take(l.Net)
	if err != nil {
		return fmt.Errorf("listen as %q: %w", l.Name, err)
	}
	if err = r.listen(&listener{Listener: l, fd: fd, local: local}); err != nil {
		tcp.Close(fd)
		return fmt.Errorf("listen as %q: %w", l.Name, err)
	}
	return nil
}

func (r *Relay) listen(l *listener) error {
	l.setOptions(*r.timing.Load())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listeners[l.Name] != nil {
		return errors.New("there is one of this name")
	}
	if r.state == hasEnded {
		return errEnded
	}
	r.lastID++
	l.id = r.lastID
	r.listeners[l.Name] = l
	if r.state == isRunning {
		r.handOut(l)
	}
	return nil
}

// Unlisten closes a listener; connections that wait there are taken in before, and its sessions go on.
func (r *Relay) Unlisten(name string) {
	r.mu.Lock()
	l := r.listeners[name]
	delete(r.listeners, name)
	r.mu.Unlock()
	if l == nil {
		return
	}
	for _, w := range r.workers {
		w.ask(func() { w.removeListener(l) })
	}
	tcp.Close(l.fd)
}

// Drain closes all listeners and waits until no session is left, or for the context's end, of which it returns the cause.
func (r *Relay) Drain(ctx context.Context) error {
	r.mu.Lock()
	var names []string
	for name := range r.listeners {
		names = append(names, name)
	}
	r.mu.Unlock()
	for _, name := range names {
		r.Unlisten(name)
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for r.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %d sessions to end: %w", r.open.Load(), context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}

// SetLimits changes the limits for new connections.
func (r *Relay) SetLimits(l Limits) {
	l = l.withDefaults()
	r.limits.Store(&l)
}

// SetTiming changes the times; those that run already may keep their old ones.
func (r *Relay) SetTiming(t Timing) {
	t = t.withDefaults()
	r.timing.Store(&t)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.listeners {
		l.setOptions(t)
	}
}

// seldom says whether the log may tell of a limit again.
func (r *Relay) seldom() bool {
	now, told := int64(time.Since(r.start)), r.told.Load()
	return (told == 0 || now-told >= int64(logEvery)) && r.told.CompareAndSwap(told, now)
}
