package feed

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// lostAfter is how long the API server may not answer before the log says so.
const lostAfter = 10 * time.Second

// Contact knows for how long the API server has not answered. It is safe for concurrent use.
type Contact struct {
	log     *slog.Logger
	changed chan struct{} // capacity 1: silent changed

	mu     sync.Mutex           // guards the fields below
	silent map[string]time.Time // kind of object -> since when a request for it has no good answer
	err    error                // the last one; nil: none since the last good answer
}

// NewContact returns a contact that has nothing to say yet. Its log says when the API server is lost and back.
func NewContact(log *slog.Logger) *Contact {
	return &Contact{log: log, changed: make(chan struct{}, 1), silent: map[string]time.Time{}}
}

// Begin notes that a request for a kind of objects goes out.
func (c *Contact) Begin(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.silent[kind]; !ok {
		c.silent[kind] = time.Now()
		c.signal()
	}
}

// End notes the answer to a request.
func (c *Contact) End(kind string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	if err == nil {
		delete(c.silent, kind)
		c.signal()
	}
}

func (c *Contact) signal() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// LastError returns the last answer if it was an error.
func (c *Contact) LastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

var errSilent = errors.New("it does not answer")

// since returns the time of the first request that has no good answer, and why, as far as is known; zero if all have.
func (c *Contact) since() (first time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.silent {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if !first.IsZero() && c.err == nil {
		return first, errSilent
	}
	return first, c.err
}

// Lost returns since when the API server does not answer, and its last error; zero while it does, and for as long as that
// may only be a moment.
func (c *Contact) Lost() (since time.Time, err error) {
	if since, err = c.since(); time.Since(since) < lostAfter {
		return time.Time{}, nil
	}
	return since, err
}

// Follow says in the log when the API server is lost and when it is back, until the context ends.
func (c *Contact) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		since, err := c.since()
		if since.IsZero() {
			c.wait(ctx, nil)
			continue
		}
		if left := time.Until(since.Add(lostAfter)); left > 0 {
			timer := time.NewTimer(left)
			c.wait(ctx, timer.C)
			timer.Stop()
			continue
		}
		c.log.Warn("lost the API server, traffic goes on as it last said", "error", err)
		c.untilBack(ctx, since)
	}
}

// untilBack waits until all requests have a good answer.
func (c *Contact) untilBack(ctx context.Context, since time.Time) {
	for {
		if first, _ := c.since(); first.IsZero() {
			c.log.Info("the API server is back", "after", time.Since(since).Round(time.Second))
			return
		}
		if !c.wait(ctx, nil) {
			return
		}
	}
}

// wait returns when something changed or the timer fires; false if the context ends.
func (c *Contact) wait(ctx context.Context, timer <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-timer:
	case <-c.changed:
	}
	return true
}
