package https

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"varco.dev/internal/kernel/tcp"
)

const (
	// patrolEvery is how often connections are looked at that were written to.
	patrolEvery = time.Second
	// Clients that say nothing are probed, and given up after 40 s.
	clientIdle, clientInterval, clientProbes = 15 * time.Second, 5 * time.Second, 5
)

func probing() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: clientIdle, Interval: clientInterval, Count: clientProbes}
}

// silence is how long the peer of a connection has left bytes unacknowledged. The kernel would try for a quarter of an hour, or
// for TCP_USER_TIMEOUT, which also ends connections whose peer is well and does not read for a while, such as that of
// `kubectl logs | less`.
type silence struct {
	socket syscall.RawConn // nil: none is known
	wrote  atomic.Bool     // bytes, which may wait for an acknowledgement
	since  time.Time       // zero: there is none; the patrol's
}

// of begins with a connection, which may be another thing than a socket.
func (s *silence) of(c net.Conn) {
	if socket, ok := c.(syscall.Conn); ok {
		s.socket, _ = socket.SyscallConn() // fails where it is closed already
	}
}

// tooLong asks the kernel whether bytes wait for an acknowledgement, and nothing was heard meanwhile for so long.
func (s *silence) tooLong(now time.Time, most time.Duration) bool {
	if s.socket == nil || !s.wrote.Swap(false) {
		return false
	}
	var i tcp.Info
	err := error(nil)
	if closed := s.socket.Control(func(fd uintptr) { i, err = tcp.GetInfo(int(fd)) }); closed != nil || err != nil {
		return false
	}
	if i.Unacked > 0 || i.Unsent > 0 {
		s.wrote.Store(true)
	}
	switch {
	case i.Unacked == 0 && i.Probes == 0: // all has arrived, or a closed window is what it waits for, and its peer answers
		s.since = time.Time{}
	case s.since.IsZero() || now.Add(-i.Heard).After(s.since):
		s.since = now
	default:
		return now.Sub(s.since) >= most
	}
	return false
}

// patrol resets connections whose peer has vanished, until the context ends.
func (s *Server) patrol(ctx context.Context) error {
	tick := time.NewTicker(patrolEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, c := range s.flights.connections() {
				if c.silence.tooLong(now, s.config.UserTimeout) {
					c.reset()
				}
			}
			for _, v := range s.crowd.all() {
				if v.silence.tooLong(now, s.config.UserTimeout) {
					s.crowd.lose(v)
				}
			}
		}
	}
}
