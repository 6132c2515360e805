package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/spdystream"
	corev1 "k8s.io/api/core/v1"
)

// Times of a tunnel.
const (
	// StreamTimeout bounds the wait for the kubelet to take a new connection.
	StreamTimeout = 10 * time.Second
	// lateAnswer is how long somebody listens for an answer in which nobody is interested any more.
	lateAnswer = time.Minute
	// busyPeriod is the time between looks at whether waiting for an answer makes sense.
	busyPeriod = 50 * time.Millisecond
	// StuckTimeout is how long one frame may wait to be sent until new requests take another tunnel: an app that does not read
	// what is uploaded to it stops everything that goes its way.
	StuckTimeout = time.Second
	// PingPeriod is the time between pings, which keep load balancers from forgetting a quiet tunnel and find dead ones.
	PingPeriod = 10 * time.Second
	// DoubtTimeout is how long a tunnel may move no byte until new requests go through another one: a laptop that wakes up
	// does not have to wait for DeadTimeout.
	DoubtTimeout = 25 * time.Second
	// DeadTimeout is how long a tunnel may move no byte, pings and their answers included, before it is given up.
	DeadTimeout = 45 * time.Second
)

// Errors of connections through a tunnel.
var (
	errTunnelLost = errors.New("the tunnel to the pod broke")
	errTunnelBusy = errors.New("the tunnel to the pod is held up by a client that does not read its answer, or an app that does not read its request")
)

// tunnel is one pods/portforward connection, which carries many TCP connections to one pod.
type tunnel struct {
	session *spdystream.Connection
	wire    *wire
	web     transports
	lost    chan struct{} // closed when the session has ended
	end     sync.Once
	running sync.WaitGroup // by start
	suspect atomic.Bool    // something in it has broken: new requests take another
	stalled atomic.Int32   // connections whose client does not read what has arrived
	blocked atomic.Int32   // those of them that have no room left: behind them, nothing arrives

	mu        sync.Mutex
	ended     bool
	conns     map[*conn]struct{}
	requests  int       // connections ever opened: their request ids
	users     int       // requests that are under way, and dials
	idleSince time.Time // when the last of both ended
}

// newTunnel takes over an open pods/portforward connection.
func newTunnel(w *wire) (*tunnel, error) {
	session, err := spdystream.NewConnection(w, false)
	if err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("starting SPDY: %w", err)
	}
	t := &tunnel{
		session: session, wire: w,
		lost: make(chan struct{}), conns: map[*conn]struct{}{}, idleSince: time.Now(),
	}
	t.web = newTransports(t.dialContext)
	t.start(t.serve)
	t.start(t.keepAlive)
	return t, nil
}

// start runs f beside the others of this tunnel, unless the tunnel has ended.
func (t *tunnel) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.running.Go(f)
	}
	return !t.ended
}

// serve reads frames until the connection ends. Servers open no streams in portforward.
func (t *tunnel) serve() {
	t.session.Serve(func(s *spdystream.Stream) { _ = s.Reset() })
	t.kill()
}

// kill ends the tunnel and everything in it. It may be called again, and does not wait: a WebSocket says goodbye first, for
// which it may have to wait for a write that hangs.
func (t *tunnel) kill() {
	t.end.Do(func() {
		t.mu.Lock()
		t.running.Go(func() { _ = t.wire.Close() })
		t.ended = true
		t.mu.Unlock()
		close(t.lost)
		t.web.closeIdle()
	})
}

// wait returns when all that the tunnel started has ended. Only for a killed tunnel.
func (t *tunnel) wait() { t.running.Wait() }

// alive says whether the session goes on. It ends before its streams do, and before kill is called.
func (t *tunnel) alive() bool {
	select {
	case <-t.lost:
		return false
	case <-t.session.CloseChan():
		return false
	default:
		return true
	}
}

func (t *tunnel) doubtful() bool {
	return t.suspect.Load() || t.stalled.Load() == 0 && t.wire.quiet() > DoubtTimeout
}

// jammed says whether nothing gets through at the moment, in one of the directions.
func (t *tunnel) jammed() bool { return t.blocked.Load() > 0 || t.wire.sending() > StuckTimeout }

// held says whether new requests had better take another tunnel.
func (t *tunnel) held() bool { return t.stalled.Load() > 0 || t.jammed() }

// keepAlive sends pings, and ends a tunnel in which nothing moves any more. Where a client of ours is what holds the
// tunnel up, silence is no sign of death.
func (t *tunnel) keepAlive() {
	ticker := time.NewTicker(PingPeriod)
	defer ticker.Stop()
	pings := make(chan struct{}, 1) // one under way at a time: a ping has no timeout of its own
	for {
		select {
		case <-t.lost:
			return
		case <-ticker.C:
		}
		if t.stalled.Load() == 0 && t.wire.quiet() > DeadTimeout {
			t.kill()
			return
		}
		select {
		case pings <- struct{}{}:
			t.start(func() { _, _ = t.session.Ping(); <-pings })
		default:
		}
	}
}

// dialContext opens a TCP connection to the port that addr names, inside the pod. The context only guards the start:
// a half opened pair of streams is not abandoned, because spdystream would stop at its late answer.
func (t *tunnel) dialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := t.dialUnlessJammed(portText)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: tunnelNet, Addr: portAddr(portText), Err: err}
	}
	return c, nil
}

// dialUnlessJammed leaves a dial alone that cannot even say what it wants. What comes of it after all is closed.
func (t *tunnel) dialUnlessJammed(port string) (*conn, error) {
	type result struct {
		conn *conn
		err  error
	}
	came := make(chan result, 1)
	go func() {
		c, err := t.dial(port)
		came <- result{c, err}
	}()
	busy := time.NewTicker(busyPeriod)
	defer busy.Stop()
	for {
		select {
		case r := <-came:
			return r.conn, r.err
		case <-busy.C:
		}
		if t.wire.sending() <= StuckTimeout {
			continue
		}
		go func() {
			if r := <-came; r.conn != nil {
				r.conn.Close()
			}
		}()
		return nil, errTunnelBusy
	}
}

func (t *tunnel) dial(port string) (*conn, error) {
	headers := t.headers(port)
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failures, err := t.session.CreateStream(headers.Clone(), nil, false)
	if err != nil {
		return nil, t.broken(err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := t.session.CreateStream(headers, nil, false)
	if err != nil {
		go forsake(failures)
		return nil, t.broken(err)
	}
	c := newConn(t, port, data, failures)
	switch err := t.accepted(failures, data); {
	case err == errTunnelBusy:
		return nil, err
	case errors.Is(err, spdystream.ErrReset):
		return nil, t.rejected(c)
	case err != nil:
		return nil, t.giveUp(c, err)
	}
	if err := failures.Close(); err != nil { // nothing is ever sent on it
		return nil, t.giveUp(c, err)
	}
	return t.adopt(c)
}

// rejected is the error of a connection that failed before its streams were answered: kubelets do both at once.
func (t *tunnel) rejected(c *conn) error {
	defer c.hangUp()
	if !t.start(c.listen) {
		return errTunnelLost
	}
	if err := c.verdict(); err != io.EOF {
		return err
	}
	return errTunnelLost
}

// giveUp ends the tunnel. Streams that nobody reads would keep the session from ending.
func (t *tunnel) giveUp(c *conn, err error) error {
	err = t.broken(err)
	c.hangUp()
	return err
}

func (t *tunnel) headers(port string) http.Header {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	headers := http.Header{}
	headers.Set(corev1.PortHeader, port)
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(t.requests))
	return headers
}

// broken ends the tunnel after an error at which nobody knows any more what the other side thinks of its streams.
func (t *tunnel) broken(err error) error {
	t.kill()
	return fmt.Errorf("%w: %w", errTunnelLost, err)
}

// accepted waits for the answers to both streams at once: one round trip, where client-go needs two. Data sent before
// its stream's answer would be dropped by the kubelet. Who waits behind a client that does not read gives up, and the
// streams are reset when their answers have come after all: spdystream would stop at an answer that nobody waits for.
func (t *tunnel) accepted(streams ...*spdystream.Stream) error {
	answers := make(chan error, len(streams))
	for _, s := range streams {
		go func() { answers <- s.WaitTimeout(lateAnswer) }()
	}
	timeout := time.NewTimer(StreamTimeout)
	defer timeout.Stop()
	busy := time.NewTicker(busyPeriod)
	defer busy.Stop()
	for came := 0; came < len(streams); {
		select {
		case <-t.lost: // spdystream does not tell those who wait
			return errors.New("connection closed")
		case <-timeout.C:
			return errors.New("no answer to a new stream")
		case <-busy.C:
			if t.jammed() {
				go abandon(answers, len(streams)-came, streams)
				return errTunnelBusy
			}
		case err := <-answers:
			if came++; err != nil {
				return err
			}
		}
	}
	return nil
}

func abandon(answers <-chan error, missing int, streams []*spdystream.Stream) {
	for range missing {
		<-answers
	}
	for _, s := range streams {
		_ = s.Reset()
	}
}

// forsake lets go of a stream whose answer nobody has waited for.
func forsake(s *spdystream.Stream) {
	_ = s.Reset()
	_ = s.WaitTimeout(lateAnswer) // an answer that was being handed over
}

func (t *tunnel) adopt(c *conn) (*conn, error) {
	t.mu.Lock()
	t.conns[c] = struct{}{}
	t.mu.Unlock()
	if !t.start(c.listen) || !t.start(c.pump) || !t.start(c.send) {
		_ = c.Close()
		return nil, errTunnelLost
	}
	return c, nil
}

func (t *tunnel) drop(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	if len(t.conns) == 0 {
		t.idleSince = time.Now()
	}
}

// wanted says whether anybody but one connection uses the tunnel.
func (t *tunnel) wanted() bool {
	t.web.closeIdle()
	return t.size() > 1
}

// stall is called when a client falls behind, and again when it has caught up. Connections that wait in the pools are
// given back, so that no new request is sent into a tunnel that may soon be unable to answer.
func (t *tunnel) stall(by int32) {
	if t.stalled.Add(by) > 0 && by > 0 {
		t.web.closeIdle()
	}
}

// use keeps the tunnel from being called idle until release.
func (t *tunnel) use() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users++
}

func (t *tunnel) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
	t.idleSince = time.Now()
}

// idle says since when nobody uses the tunnel. An answer or a WebSocket that still runs has its connection.
func (t *tunnel) idle() (since time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.idleSince, t.users == 0 && len(t.conns) == 0
}

func (t *tunnel) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// portAddr is a port inside a pod, in errors.
type portAddr string

func (portAddr) Network() string  { return tunnelNet }
func (p portAddr) String() string { return "port " + string(p) }
