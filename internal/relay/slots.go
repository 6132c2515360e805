package relay

import (
	"log/slog"
	"sync"
	"time"
)

// fullEvery is how often the log says that all slots are taken.
const fullEvery = time.Minute

// Slots bound what relays have open at a time. They are safe for concurrent use.
type Slots struct {
	most int

	mu    sync.Mutex // guards the fields below
	taken int
	told  time.Time
}

// NewSlots returns so many free slots.
func NewSlots(most int) *Slots { return &Slots{most: most} }

// Taken returns how many are in use.
func (s *Slots) Taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// take takes a slot if one is free.
func (s *Slots) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == s.most {
		return false
	}
	s.taken++
	return true
}

// give gives back a slot that was taken.
func (s *Slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
}

// full says that a client had to go because all slots are taken, once a minute.
func (s *Slots) full(log *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.told) >= fullEvery {
		s.told = time.Now()
		log.Warn("too many clients at a time, some are turned away", "most", s.most)
	}
}
