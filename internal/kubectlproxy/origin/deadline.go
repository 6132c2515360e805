package origin

import (
	"sync"
	"time"
)

// deadline is a point of time that can be waited for and moved. Its zero value has none.
type deadline struct {
	mu     sync.Mutex
	moves  int // tells a timer that fires late that it is no longer meant
	timer  *time.Timer
	passed chan struct{} // closed when it has passed; another one after it has moved away from the past
}

// set moves the deadline; the zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moves++
	if d.timer != nil {
		d.timer.Stop()
	}
	if d.passed == nil || isClosed(d.passed) {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	if left, move := time.Until(t), d.moves; left > 0 {
		d.timer = time.AfterFunc(left, func() { d.expire(move) })
		return
	}
	close(d.passed)
}

// expire is what the timer of a move does, unless another one has followed.
func (d *deadline) expire(move int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moves == move {
		close(d.passed)
	}
}

// wait is closed once the deadline has passed. Who waits on it and has the deadline moved away meanwhile keeps waiting
// on the old one, which is right: it is the same channel until it has been closed.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
