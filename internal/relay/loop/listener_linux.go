package loop

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"varco.dev/internal/kernel/tcp"
)

const (
	// acceptBatch is how many connections a loop takes in before it looks after those it has.
	acceptBatch = 16
	// lastBatches bounds what is taken in before a listener is closed: the largest queue that the kernel has by default.
	lastBatches = 4096 / acceptBatch
	// crowd is by how many sessions a loop may be ahead of another before it hands it new ones. The kernel tells the loop
	// that came to wait last of a new connection, which would have one loop do all the work.
	crowd = 4
	// Pauses after an accept that failed, as net/http: the process has no file descriptors, most likely.
	minPause = 5 * time.Millisecond
	maxPause = time.Second

	probes       = 5 // of keepalive, or of a closed window, that are lost before a peer counts as gone
	probeEvery   = time.Second
	clientsProbe = 5 // clients are probed after so many times what backends are
)

// listener is a Listener that was taken over.
type listener struct {
	Listener
	fd    int
	id    uint32
	local netip.AddrPort
}

// setOptions sets what connections inherit. Where that fails they get it themselves when they are a second old.
func (l *listener) setOptions(t Timing) { setClient(l.fd, clientsProbe*t.KeepAlive) }

// setClient sets the options of a client's connection.
func setClient(fd int, idle time.Duration) error {
	return errors.Join(tcp.SetNoDelay(fd), setProbes(fd, idle))
}

// setProbes has an idle peer probed. TCP_USER_TIMEOUT alone counts for the kernel then: it ends a connection on which nothing
// came for so long and at least one probe is unanswered (tcp_keepalive_timer), which with a time below idle is the first
// that gets lost.
func setProbes(fd int, idle time.Duration) error {
	return errors.Join(tcp.SetUserTimeout(fd, patience(idle)),
		tcp.SetKeepAlive(fd, tcp.KeepAlive{Idle: idle, Interval: probeEvery, Count: probes}))
}

// patience is the TCP_USER_TIMEOUT of a connection that is probed after idle.
func patience(idle time.Duration) time.Duration {
	return (idle + time.Second - 1).Truncate(time.Second) + probes*probeEvery
}

// wantsHeader says whether a peer must send a PROXY header. A prefix has no zone, and contains no address that has one.
func (l *listener) wantsHeader(peer netip.Addr) bool {
	peer = peer.WithZone("")
	for _, p := range l.ProxyFrom {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// listening is a listener in one loop.
type listening struct {
	*listener
	pause  time.Duration // before the next attempt after one that failed
	resume int64         // when it is looked at again; 0: it is
}

func (w *worker) addListener(l *listener) {
	at := &listening{listener: l, pause: minPause}
	w.listeners[l.id] = at
	w.watchListener(at)
}

func (w *worker) watchListener(l *listening) {
	l.resume = 0
	if err := w.poller.AddListener(l.fd, uint64(l.id)); err != nil {
		w.log.Error("cannot take in connections, trying again", "listener", l.Name, "after", maxPause, "error", err)
		l.resume = w.now + int64(maxPause)
	}
}

func (w *worker) removeListener(l *listener) {
	at := w.listeners[l.id]
	if at == nil {
		return
	}
	delete(w.listeners, l.id)
	if err := w.poller.Remove(l.fd); err != nil {
		w.log.Error("cannot leave a listener", "listener", l.Name, "error", err)
	}
	for range lastBatches { // what waits in the queue would be reset
		if !w.accept(at) {
			return
		}
	}
}

// accept takes in some connections, and returns whether there may be more.
func (w *worker) accept(l *listening) bool {
	for range acceptBatch {
		fd, peer, err := tcp.Accept(l.fd)
		switch {
		case err == nil:
			l.pause = minPause
			w.take(l.listener, fd, peer)
		case errors.Is(err, tcp.ErrWouldBlock):
			return false
		default:
			w.acceptFailed(l, err)
			return false
		}
	}
	return true
}

// acceptFailed leaves the listener alone for a while: the kernel would tell of it again and again.
func (w *worker) acceptFailed(l *listening, err error) {
	w.stats.acceptErrors.Add(1)
	if w.relay.seldom() {
		w.log.Warn("cannot take in connections, trying again", "listener", l.Name, "after", l.pause, "error", err)
	}
	w.poller.Remove(l.fd)
	l.resume = w.now + int64(l.pause)
	l.pause = min(2*l.pause, maxPause)
}

// take has this loop or one with less to do look after a new connection.
func (w *worker) take(l *listener, fd int, peer netip.AddrPort) {
	w.stats.accepted.Add(1)
	limits := w.relay.limits.Load()
	if w.relay.open.Add(1) > int64(limits.Connections) {
		w.relay.open.Add(-1)
		w.refuse(fd, &w.stats.overLimit, "connections", limits.Connections)
		return
	}
	if other := w.lessBusy(); other != nil {
		other.count.Add(1)
		if other.post(func() { other.admit(l, fd, peer) }) {
			return
		}
		other.count.Add(-1)
	}
	w.count.Add(1)
	w.admit(l, fd, peer)
}

// lessBusy returns a loop that has far fewer sessions; nil: none.
func (w *worker) lessBusy() *worker {
	var least *worker
	most := w.count.Load() - crowd
	for _, other := range w.relay.workers {
		if n := other.count.Load(); n < most {
			least, most = other, n
		}
	}
	return least
}
