package outbound

import (
	"context"
	"net/netip"
	"sync"
)

// slots bound how many connections are being made at a time, in all and to one address.
type slots struct {
	all chan struct{}

	mu sync.Mutex // guards of
	of map[netip.AddrPort]*lane
}

// lane is the slots of one address, as long as somebody has or wants one.
type lane struct {
	slots chan struct{}
	users int
}

func newSlots() *slots {
	return &slots{all: make(chan struct{}, maxEgressDials), of: map[netip.AddrPort]*lane{}}
}

// take waits for a slot. give is to be called once. The error is that of the context.
func (s *slots) take(ctx context.Context, to netip.AddrPort) (give func(), err error) {
	l := s.enter(to)
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		s.leave(to, l)
		return nil, ctx.Err()
	}
	back := func() { <-l.slots; s.leave(to, l) }
	select {
	case s.all <- struct{}{}:
	case <-ctx.Done():
		back()
		return nil, ctx.Err()
	}
	return func() { <-s.all; back() }, nil
}

func (s *slots) enter(to netip.AddrPort) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.of[to]
	if l == nil {
		l = &lane{slots: make(chan struct{}, maxTargetDials)}
		s.of[to] = l
	}
	l.users++
	return l
}

func (s *slots) leave(to netip.AddrPort, l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(s.of, to)
	}
}
