package node

import (
	"context"
	"time"
)

// Restart back-off of containers. The kubelet's is 10 s to 5 min; a lab's user waits for the result.
const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	// backoffReset is how long a container must have run for its next restart to be at once again.
	backoffReset = 2 * maxBackoff
)

// backoff counts the restarts of one container.
type backoff struct{ next time.Duration }

// after returns how long to wait before a restart, after a run of the given length: 0, then 1 s, doubling up to 30 s.
func (b *backoff) after(ran time.Duration) time.Duration {
	if ran >= backoffReset {
		b.next = 0
	}
	d := b.next
	b.next = min(max(2*d, firstBackoff), maxBackoff)
	return d
}

// sleep waits for d and returns false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
