package https

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"varco.dev/internal/httpproxy/vouch"
	"varco.dev/internal/relay"
)

var (
	errLost = errors.New("the API server has failed its checks")
	errShed = errors.New("the watch goes on at another API server")
)

// flights are the attempts and the connections that are open, by backend.
type flights struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex // guards the maps
	open  map[netip.AddrPort]map[*flight]struct{}
	conns map[netip.AddrPort]map[*conn]struct{}

	shed, lost atomic.Int64 // answers that were ended
}

func newFlights(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *flights {
	return &flights{dial: dial, open: map[netip.AddrPort]map[*flight]struct{}{}, conns: map[netip.AddrPort]map[*conn]struct{}{}}
}

// put adds to the set of a backend.
func put[K any](sets map[netip.AddrPort]map[*K]struct{}, of netip.AddrPort, k *K) {
	if sets[of] == nil {
		sets[of] = map[*K]struct{}{}
	}
	sets[of][k] = struct{}{}
}

// drop removes from it.
func drop[K any](sets map[netip.AddrPort]map[*K]struct{}, of netip.AddrPort, k *K) {
	delete(sets[of], k)
	if len(sets[of]) == 0 {
		delete(sets, of)
	}
}

func (f *flights) add(a *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	put(f.open, a.to.Backend, a)
}

func (f *flights) remove(a *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	drop(f.open, a.to.Backend, a)
}

// of returns the flights to a backend that are of use.
func (f *flights) of(backend netip.AddrPort, use func(*flight) bool) (out []*flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a := range f.open[backend] {
		if use(a) {
			out = append(out, a)
		}
	}
	return out
}

// end breaks off all that a backend has to do with, and returns how many requests there were.
func (f *flights) end(backend netip.AddrPort) int {
	all := f.of(backend, func(*flight) bool { return true })
	for _, a := range all {
		a.lost.Store(true)
		if a.kind != vouch.Upgrading {
			a.cancel(errLost)
		}
	}
	f.mu.Lock()
	conns := make([]*conn, 0, len(f.conns[backend]))
	for c := range f.conns[backend] {
		conns = append(conns, c)
	}
	f.mu.Unlock()
	for _, c := range conns {
		c.reset()
	}
	f.lost.Add(int64(len(all)))
	return len(all)
}

// shortestWatch is how long a watch must have lasted to be ended in order: client-go lists all objects again after one that has
// brought no event within a second (VeryShortWatchError).
const shortestWatch = time.Second

// shedMost ends watches of a backend in order, those first that have lasted longest: they would end first in any case.
func (f *flights) shedMost(backend netip.AddrPort, most int) int {
	if most <= 0 {
		return 0
	}
	now := time.Now()
	all := f.of(backend, func(a *flight) bool {
		return a.watch.Load() != nil && !a.lost.Load() && now.Sub(a.began) >= shortestWatch
	})
	slices.SortFunc(all, func(a, b *flight) int { return a.began.Compare(b.began) })
	all = all[:min(most, len(all))]
	for _, a := range all {
		a.lost.Store(true)
		a.watch.Load().shed()
	}
	f.shed.Add(int64(len(all)))
	return len(all)
}

// Dial makes a connection that is known here.
func (f *flights) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	below, err := f.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: below, all: f}
	c.silence.of(below)
	c.backend, _ = netip.ParseAddrPort(addr) // it was one
	f.mu.Lock()
	defer f.mu.Unlock()
	put(f.conns, c.backend, c)
	return c, nil
}

// count returns how many connections are open.
func (f *flights) count() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conns := range f.conns {
		n += len(conns)
	}
	return n
}

// connections returns those that were written to.
func (f *flights) connections() (all []*conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conns := range f.conns {
		for c := range conns {
			if c.silence.wrote.Load() {
				all = append(all, c)
			}
		}
	}
	return all
}

// lastByte returns when something came from a backend last on a connection that is open; zero: never.
func (f *flights) lastByte(backend netip.AddrPort) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var last int64
	for c := range f.conns[backend] {
		last = max(last, c.heard.Load())
	}
	if last == 0 {
		return time.Time{}
	}
	return time.Unix(0, last)
}

// conn is a connection to a backend.
type conn struct {
	net.Conn
	all     *flights
	backend netip.AddrPort
	written atomic.Int64 // bytes, those that are being written included
	heard   atomic.Int64 // when something came last, in nanoseconds since 1970; 0: never
	once    sync.Once

	silence silence
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write implements net.Conn. Bytes count before they are written, and no more if they were not: whoever asks meanwhile whether a
// request may be sent again must not be told that nothing of it has gone out.
func (c *conn) Write(p []byte) (int, error) {
	c.written.Add(int64(len(p)))
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n - len(p)))
	c.silence.wrote.Store(true)
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.all.mu.Lock()
		defer c.all.mu.Unlock()
		drop(c.all.conns, c.backend, c)
	})
	return c.Conn.Close()
}

// reset has the peer see an error.
func (c *conn) reset() {
	relay.Reset(c.Conn)
	c.Close()
}

// CloseWrite ends the direction of the writes.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// below returns the connection that one rests on, or nil.
func below(c net.Conn) *conn {
	for c != nil {
		if found, ok := c.(*conn); ok {
			return found
		}
		next, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = next.NetConn()
	}
	return nil
}
