package relay

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	defaultIdle = 2 * time.Minute
	maxDatagram = 65535 // what the length field of UDP can say
)

// Socket is what UDP wants of *net.UDPConn. It must be bound to one address, so that answers come from where clients ask.
type Socket interface {
	ReadFromUDPAddrPort(b []byte) (n int, client netip.AddrPort, err error)
	WriteToUDPAddrPort(b []byte, client netip.AddrPort) (n int, err error)
	Close() error
}

// UDP relays the datagrams of a socket. Each client address has a session: a backend, and a socket of its own that is
// connected to it, so that answers find their client and ICMP errors end the session. Where there are no more slots, the
// session that was idle longest makes room.
type UDP struct {
	socket Socket
	config Config

	mu       sync.Mutex // guards the fields below
	sessions map[netip.AddrPort]*session
	order    *list.List // of *session, the one that was idle longest first
}

// session is one client's.
type session struct {
	client, backend netip.AddrPort
	conn            net.Conn // to the backend

	place *list.Element // in the order
	last  time.Time     // when the last datagram passed, either way
}

// NewUDP returns a relay that does nothing before Run.
func NewUDP(s Socket, c Config) *UDP {
	return &UDP{socket: s, config: c.withDefaults(), sessions: map[netip.AddrPort]*session{}, order: list.New()}
}

// Run relays until the context ends or the socket is closed; it ends all sessions, closes the socket, and returns nil.
func (u *UDP) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { u.socket.Close() })
	defer stop()
	var answers sync.WaitGroup
	defer answers.Wait()
	defer u.endAll()
	buf := make([]byte, maxDatagram)
	for {
		n, client, err := u.socket.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			u.forward(ctx, &answers, client, buf[:n])
		case errors.Is(err, net.ErrClosed) || !wait(ctx, minPause):
			return nil
		default:
			u.config.Log.Debug("cannot read datagrams, trying again", "error", err)
		}
	}
}

// forward sends a client's datagram to its backend. What cannot be sent is dropped, as a network does; the next datagram
// begins a new session.
func (u *UDP) forward(ctx context.Context, answers *sync.WaitGroup, client netip.AddrPort, datagram []byte) {
	s := u.find(client)
	if s == nil {
		var err error
		if s, err = u.begin(ctx, client); err != nil {
			u.config.Log.Debug("no session for a datagram", "client", client, "error", err)
			return
		}
		answers.Go(func() { u.answer(s) })
	}
	if _, err := s.conn.Write(datagram); err != nil {
		u.end(s, err)
	}
}

// find returns a client's session, which is in use now. A session whose backend may not be kept is ended.
func (u *UDP) find(client netip.AddrPort) *session {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sessions[client]
	switch {
	case s == nil:
		return nil
	case !u.config.Keep(s.backend):
		u.endLocked(s)
		return nil
	}
	u.usedLocked(s)
	return s
}

func (u *UDP) usedLocked(s *session) {
	s.last = time.Now()
	u.order.MoveToBack(s.place)
}

var errFull = errors.New("there are too many sessions")

// begin opens a session. Only Run calls it, so that a client never has two.
func (u *UDP) begin(ctx context.Context, client netip.AddrPort) (*session, error) {
	if !u.makeRoom() {
		u.config.Slots.full(u.config.Log)
		return nil, errFull
	}
	conn, backend, err := u.config.connect(ctx, "udp", client)
	if err != nil {
		u.config.Slots.give()
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &session{client: client, backend: backend, conn: conn, last: time.Now()}
	s.place = u.order.PushBack(s)
	u.sessions[client] = s
	return s, nil
}

// makeRoom takes a slot, that of another session if need be.
func (u *UDP) makeRoom() bool {
	if u.config.Slots.take() {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if oldest := u.order.Front(); oldest != nil {
		u.endLocked(oldest.Value.(*session))
	}
	return u.config.Slots.take()
}

// answer sends the backend's datagrams to the client until the session ends.
func (u *UDP) answer(s *session) {
	buf := make([]byte, maxDatagram)
	for {
		idleAt := u.idleAt(s)
		s.conn.SetReadDeadline(idleAt)
		n, err := s.conn.Read(buf)
		switch {
		case err == nil:
			u.used(s)
			u.socket.WriteToUDPAddrPort(buf[:n], s.client) // what cannot be sent is dropped, as a network does
		case errors.Is(err, os.ErrDeadlineExceeded) && u.idleAt(s).After(idleAt):
		default:
			u.end(s, err)
			return
		}
	}
}

// idleAt returns when a session will have been idle for too long.
func (u *UDP) idleAt(s *session) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return s.last.Add(u.config.Idle)
}

func (u *UDP) used(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.usedLocked(s)
}

// end ends a session because of an error. It may be repeated.
func (u *UDP) end(s *session, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.endLocked(s) {
		u.config.Log.Debug("a session has ended", "client", s.client, "backend", s.backend, "error", err)
	}
}

// endLocked ends a session, and tells whether it had not ended before.
func (u *UDP) endLocked(s *session) bool {
	if u.sessions[s.client] != s {
		return false
	}
	delete(u.sessions, s.client)
	u.order.Remove(s.place)
	s.conn.Close()
	u.config.Slots.give()
	return true
}

func (u *UDP) endAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.sessions {
		u.endLocked(s)
	}
}
