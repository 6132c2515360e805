package origin

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// Bounds of all tunnels together.
const (
	// MaxTunnels is how many tunnels are open at a time; one that nobody uses makes room for a new one.
	MaxTunnels = 64
	// TunnelsPerPod is how many tunnels to one pod there are when clients or apps that do not read hold up the first.
	TunnelsPerPod = 4
	// IdleTunnelTimeout is how long a tunnel stays open after its last request.
	IdleTunnelTimeout = 2 * time.Minute
	// DialTimeout bounds the opening of a tunnel.
	DialTimeout = 15 * time.Second
	// sweepPeriod is the time between looks for idle tunnels.
	sweepPeriod = 10 * time.Second
)

// Errors about tunnels that are not opened.
var (
	errEnding         = errors.New("varco is about to end")
	errTooManyTunnels = errors.New("too many tunnels to pods are in use; end some of the requests that use them")
)

// tunnelKey says where a tunnel goes. A kubeconfig that was read again is another cluster: what it grants may differ.
type tunnelKey struct {
	config *rest.Config
	to     podName
}

// tunnels keeps the open tunnels.
type tunnels struct {
	dial func(context.Context, *rest.Config, podName) (io.ReadWriteCloser, error)

	mu      sync.Mutex
	open    map[tunnelKey][]*tunnel
	count   int // open and being opened
	dialing map[tunnelKey]*dialing
	closed  bool
	running sync.WaitGroup // dials, and one watcher for each tunnel

	ending context.Context // of the dials
	end    context.CancelFunc
}

// dialing is a tunnel that is being opened, for everybody who wants one to the same pod.
type dialing struct {
	done chan struct{} // then the others are set
	err  error
}

func newTunnels(dial func(context.Context, *rest.Config, podName) (io.ReadWriteCloser, error)) *tunnels {
	s := &tunnels{dial: dial, open: map[tunnelKey][]*tunnel{}, dialing: map[tunnelKey]*dialing{}}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// get returns a tunnel to a pod, which has been marked as used: the caller calls release on it. It opens one if there
// is none that works. Errors are the API server's StatusError, of the connection to it, or about the bounds.
func (s *tunnels) get(ctx context.Context, key tunnelKey) (*tunnel, error) {
	for {
		t, wait, err := s.find(key)
		if t != nil || err != nil {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-wait.done:
			if wait.err != nil {
				return nil, wait.err
			}
		}
	}
}

// find returns a tunnel, or what to wait for before looking again.
func (s *tunnels) find(key tunnelKey) (*tunnel, *dialing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errEnding
	}
	if t := s.best(key); t != nil {
		t.use()
		return t, nil, nil
	}
	if d := s.dialing[key]; d != nil {
		return nil, d, nil
	}
	if s.count >= MaxTunnels && !s.evict() {
		return nil, nil, errTooManyTunnels
	}
	d := &dialing{done: make(chan struct{})}
	s.dialing[key] = d
	s.count++
	s.running.Go(func() { s.connect(key, d) })
	return nil, d, nil
}

// best returns a tunnel that is not held up, or the one that is least if there may not be more of them.
func (s *tunnels) best(key tunnelKey) *tunnel {
	var last *tunnel
	alive := 0
	for _, t := range s.open[key] {
		if !t.alive() || t.doubtful() {
			continue
		}
		if !t.held() {
			return t
		}
		if alive++; last == nil || last.jammed() {
			last = t
		}
	}
	if alive < TunnelsPerPod {
		return nil
	}
	return last
}

// evict ends the tunnel that has been idle for longest. Its watcher takes it out of the count, which may be a moment
// after its successor was counted.
func (s *tunnels) evict() bool {
	oldest := s.oldest()
	if oldest == nil { // connections that only wait for their next request are no reason to turn one away
		s.each(func(t *tunnel) { t.web.closeIdle() })
		oldest = s.oldest()
	}
	if oldest != nil {
		oldest.kill()
	}
	return oldest != nil
}

func (s *tunnels) oldest() *tunnel {
	var oldest *tunnel
	var since time.Time
	s.each(func(t *tunnel) {
		if at, ok := t.idle(); ok && t.alive() && (oldest == nil || at.Before(since)) {
			oldest, since = t, at
		}
	})
	return oldest
}

func (s *tunnels) each(do func(*tunnel)) {
	for _, open := range s.open {
		for _, t := range open {
			do(t)
		}
	}
}

// connect opens a tunnel. It does not end with the client that wanted it first: others wait for the same one.
func (s *tunnels) connect(key tunnelKey, d *dialing) {
	ctx, cancel := context.WithTimeout(s.ending, DialTimeout)
	defer cancel()
	t, err := s.handshake(ctx, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dialing, key)
	switch d.err = err; {
	case s.closed && err == nil:
		t.kill()
	case s.closed:
		d.err = errEnding
	}
	if err != nil {
		s.count--
	} else {
		s.open[key] = append(s.open[key], t)
		s.running.Go(func() { s.watch(key, t) })
	}
	close(d.done)
}

// handshake tries again after a 401: credential plugins get a new credential when they see one.
func (s *tunnels) handshake(ctx context.Context, key tunnelKey) (*tunnel, error) {
	conn, err := s.dial(ctx, key.config, key.to)
	if apierrors.IsUnauthorized(err) {
		conn, err = s.dial(ctx, key.config, key.to)
	}
	if err != nil {
		return nil, err
	}
	return newTunnel(newWire(conn))
}

// watch forgets a tunnel that has ended.
func (s *tunnels) watch(key tunnelKey, t *tunnel) {
	<-t.lost
	s.mu.Lock()
	s.count--
	s.open[key] = slices.DeleteFunc(s.open[key], func(other *tunnel) bool { return other == t })
	if len(s.open[key]) == 0 {
		delete(s.open, key)
	}
	s.mu.Unlock()
	t.wait()
}

// run ends idle tunnels until ctx ends, then all of them.
func (s *tunnels) run(ctx context.Context) {
	ticker := time.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			s.close()
			return
		case now := <-ticker.C:
			s.sweep(now.Add(-IdleTunnelTimeout))
		}
	}
}

// sweep ends the tunnels that nobody has used since.
func (s *tunnels) sweep(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(func(t *tunnel) {
		if at, ok := t.idle(); ok && at.Before(since) {
			t.kill()
		}
	})
}

// close ends all tunnels and waits for what runs in them.
func (s *tunnels) close() {
	s.mu.Lock()
	s.closed = true
	s.each((*tunnel).kill)
	s.mu.Unlock()
	s.end()
	s.running.Wait()
}

// size is how many tunnels there are, and how many connections in them.
func (s *tunnels) size() (open, conns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(func(t *tunnel) {
		open++
		conns += t.size()
	})
	return open, conns
}
