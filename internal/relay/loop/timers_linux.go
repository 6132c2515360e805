package loop

// timer is the place of a session in a queue.
type timer struct {
	prev, next *timer
	queue      *queue
	session    *session
	at         int64 // when it expires
}

// queue holds timers in the order in which they expire. Most of one queue run for the same time, so that one that is set is
// the last: there is nothing to search, and a session that waits for nothing is in none.
type queue struct {
	head timer // of a ring; its session is nil
}

func (q *queue) open() { q.head.prev, q.head.next = &q.head, &q.head }

// first returns when the next timer expires; none: false.
func (q *queue) first() (int64, bool) {
	return q.head.next.at, q.head.next != &q.head
}

// set starts t, which may run already, in this queue or another.
func (q *queue) set(t *timer, at int64) {
	t.stop()
	before := q.head.prev
	for before != &q.head && before.at > at { // Timing has changed, or it is the rest of a time
		before = before.prev
	}
	t.prev, t.next, t.queue, t.at = before, before.next, q, at
	before.next.prev, before.next = t, t
}

func (t *timer) stop() {
	if t.queue == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next, t.queue = nil, nil, nil
}

// expire stops and passes on all timers whose time has come.
func (q *queue) expire(now int64, fn func(*session)) {
	for {
		t := q.head.next
		if t == &q.head || t.at > now {
			return
		}
		t.stop()
		fn(t.session)
	}
}
