package reconcile

import (
	"context"
	"runtime"
	"time"
)

// runner decides what Run does next, and when.
type runner struct {
	*Loop
	resync  <-chan time.Time
	retry   time.Duration // pause after the next failure
	repairs repairs
	failure quiet
	applied time.Time // when something was applied last
}

// next returns when there is something to apply, and whether that is the whole state.
func (r *runner) next(ctx context.Context, full bool, err error) bool {
	r.applied = time.Now()
	switch {
	case err == nil:
		r.retry = DefaultMinRetry
		if full {
			r.repairs.done()
		}
		return r.wait(ctx)
	case !full: // the whole state may do what the changes could not
		r.logFailure(0, err)
		return true
	}
	r.logFailure(r.retry, err)
	// What changes meanwhile is part of the whole state that is applied then.
	select {
	case <-ctx.Done():
	case <-time.After(r.retry):
	}
	r.retry = min(2*r.retry, DefaultMaxRetry)
	return true
}

func (r *runner) logFailure(again time.Duration, err error) {
	if skipped, ok := r.failure.speak(time.Now()); ok {
		r.config.Log.Error("cannot apply Services, trying again", "after", again, "error", err, "unreported", skipped)
	}
}

// wait returns when there are changes, or the whole state is to be applied, of which it tells.
func (r *runner) wait(ctx context.Context) (full bool) {
	for {
		var due <-chan time.Time
		if !r.repairs.due.IsZero() {
			due = time.After(time.Until(r.repairs.due))
		}
		select {
		case <-ctx.Done():
			return false
		case <-r.resync:
			return true
		case <-due:
			return true
		case reason := <-r.repair:
			if r.repairs.ask(time.Now()) {
				r.config.Log.Warn("another program has changed the tables of Services, repairing", "change", reason,
					"after", time.Until(r.repairs.due).Round(time.Millisecond))
			}
		case <-r.wake:
			r.hold(ctx)
			r.settle(ctx)
			return false
		}
	}
}

// hold waits until the pause after the last time is over, where there is to be one.
func (r *runner) hold(ctx context.Context) {
	left := r.config.MinPause - time.Since(r.applied)
	if r.config.MinPause == 0 || left <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(left):
	}
}

// settle waits until changes stop coming for a moment, so that one transaction takes those that belong together. After
// some time without changes it does not wait for the clock, which wakes an idle process a millisecond late, but lets
// those who bring changes go on with what they have in hand.
func (r *runner) settle(ctx context.Context) {
	if time.Since(r.applied) > DefaultMaxWait {
		r.yield()
		return
	}
	latest := time.After(DefaultMaxWait)
	for {
		select {
		case <-ctx.Done():
			return
		case <-latest:
			return
		case <-time.After(DefaultIdle):
			return
		case <-r.wake:
		}
	}
}

// yields is how often others get the processor before a change is applied.
const yields = 4

// yield lets others run, and takes note of their changes.
func (r *runner) yield() {
	for range yields {
		runtime.Gosched()
	}
	select {
	case <-r.wake:
	default:
	}
}

// repairs decides when the whole state is applied because someone else has changed what the data plane holds. They come
// after a moment in which the other one may end what it does, and ever more rarely if it does not: two programs that undo
// each other's work must not do so at full speed.
type repairs struct {
	due   time.Time     // zero: none is asked for
	pause time.Duration // before the next one, unless it was calm for long
	last  time.Time     // when one was last asked for
}

// ask has a repair made, and tells whether none was to be made before: one does for all that is asked for until then.
func (r *repairs) ask(now time.Time) (first bool) {
	calm := r.last.IsZero() || now.Sub(r.last) > DefaultCalm+2*r.pause
	r.last = now
	if calm {
		r.pause = DefaultMinRepair
	}
	switch {
	case !r.due.IsZero():
		return false
	case calm:
		r.due = now.Add(DefaultFirstRepair)
	default:
		r.due = now.Add(r.pause)
		r.pause = min(2*r.pause, DefaultMaxRetry)
	}
	return true
}

// done takes note that the whole state was applied, for whatever reason.
func (r *repairs) done() { r.due = time.Time{} }

// quiet keeps a message that repeats from filling the log.
type quiet struct {
	next    time.Time
	skipped int
}

// speak tells whether to log now, and how many messages were skipped before.
func (q *quiet) speak(now time.Time) (skipped int, ok bool) {
	if now.Before(q.next) {
		q.skipped++
		return 0, false
	}
	skipped, q.skipped = q.skipped, 0
	q.next = now.Add(DefaultLogPause)
	return skipped, true
}
