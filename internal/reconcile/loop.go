package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"varco.dev/internal/service"
)

// DataPlane is what the loop drives. Calls never overlap; both may block.
type DataPlane interface {
	// Update applies what changed since the last call that succeeded. After an error the loop calls Replace next.
	Update(ctx context.Context, c service.Changes) error
	// Replace makes the data plane serve exactly the given state, whatever it held before. It may be repeated. An
	// errors.ErrUnsupported is final: the loop ends with it.
	Replace(ctx context.Context, all service.Changes) error
}

// Defaults of the loop.
const (
	DefaultIdle       = time.Millisecond       // quiet time after which changes are applied
	DefaultMaxWait    = 20 * time.Millisecond  // time after which they are applied in any case
	DefaultMinRetry   = 100 * time.Millisecond // pause after the first failure; it doubles
	DefaultMaxRetry   = 30 * time.Second       // longest pause
	DefaultResync     = time.Hour              // how often everything is applied anew, against silent damage
	DefaultStuckAfter = time.Minute            // a change older than this makes the loop unhealthy
)

// Config of a Loop.
type Config struct {
	Table  *service.Table  // required: the loop owns it from now on
	Plane  DataPlane       // required
	Start  <-chan struct{} // required: closed once the table knows all objects; nothing is applied before
	Log    *slog.Logger    // required
	Report func(Result)    // optional: called after each attempt to apply something; must not block
}

// Result of one attempt to apply.
type Result struct {
	Full bool // the whole state, not only changes
	Took time.Duration
	Err  error
}

// Loop applies a Table to a DataPlane.
type Loop struct {
	config Config
	wake   chan struct{} // capacity 1: changes are in the table

	mu      sync.Mutex // guards the fields below
	table   *service.Table
	health  Health
	started bool
}

// Health of the loop at one time.
type Health struct {
	Synced      bool      // the whole state was applied at least once
	LastSuccess time.Time // zero: never
	PendingFrom time.Time // since when a change waits to be applied, once Start was closed; zero: none does
	Err         error     // of the last attempt
}

// Stuck tells whether a change has been waiting for too long.
func (h Health) Stuck(now time.Time) bool {
	return !h.PendingFrom.IsZero() && now.Sub(h.PendingFrom) > DefaultStuckAfter
}

// New returns a loop that does nothing before Run.
func New(c Config) *Loop {
	if c.Report == nil {
		c.Report = func(Result) {}
	}
	return &Loop{config: c, wake: make(chan struct{}, 1), table: c.Table}
}

// Update lets fn change the table, alone, and has the changes applied soon. It is safe for concurrent use.
func (l *Loop) Update(fn func(*service.Table)) {
	l.mu.Lock()
	fn(l.table)
	if l.started && l.health.PendingFrom.IsZero() {
		l.health.PendingFrom = time.Now()
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Health returns the present state. It is safe for concurrent use.
func (l *Loop) Health() Health {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.health
}

// Run applies changes until the context ends; then it returns nil. What was applied stays.
func (l *Loop) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-l.config.Start:
	}
	l.start()
	resync := time.NewTicker(DefaultResync)
	defer resync.Stop()
	full, retry := true, DefaultMinRetry
	for {
		err := l.apply(ctx, full)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("serve Services on this node: %w", err)
		}
		var again <-chan time.Time
		full = err != nil
		if full {
			l.config.Log.Error("cannot apply Services, trying again", "after", retry, "error", err)
			again = time.After(retry)
			retry = min(2*retry, DefaultMaxRetry)
		} else {
			retry = DefaultMinRetry
		}
		if !l.wait(ctx, again, resync.C, &full) {
			return nil
		}
	}
}

// start begins to count how long changes wait: before, it is the API server that is waited for.
func (l *Loop) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started, l.health.PendingFrom = true, time.Now()
}

// wait returns true when there is something to apply. After a failure that is when again fires: what changes meanwhile
// is part of the whole state that is applied then.
func (l *Loop) wait(ctx context.Context, again, resync <-chan time.Time, full *bool) bool {
	wake := l.wake
	if again != nil {
		wake = nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-again:
		return true
	case <-resync:
		*full = true
		return true
	case <-wake:
		return l.settle(ctx)
	}
}

// settle waits until changes stop coming for a moment, so that one transaction takes those that belong together.
func (l *Loop) settle(ctx context.Context) bool {
	latest := time.After(DefaultMaxWait)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-latest:
			return true
		case <-time.After(DefaultIdle):
			return true
		case <-l.wake:
		}
	}
}

// apply takes the changes out of the table and applies them, or the whole state.
func (l *Loop) apply(ctx context.Context, full bool) error {
	l.mu.Lock()
	since := l.health.PendingFrom
	l.health.PendingFrom = time.Time{}
	changes := l.table.Changes()
	all := service.Changes{}
	if full {
		all = l.table.All()
	}
	l.mu.Unlock()
	l.reportLosses(changes)

	if !full && changes.Empty() {
		return nil
	}
	start := time.Now()
	var err error
	if full {
		err = l.config.Plane.Replace(ctx, all)
	} else {
		err = l.config.Plane.Update(ctx, changes)
	}
	took := time.Since(start)
	l.config.Report(Result{Full: full, Took: took, Err: err})
	l.finish(since, err)
	if full && err == nil {
		l.config.Log.Info("applied all Services", "ports", len(all.Ports), "took", took)
	}
	return err
}

func (l *Loop) finish(since time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.health.Err = err
	if err == nil {
		l.health.Synced, l.health.LastSuccess = true, time.Now()
		return
	}
	if since.IsZero() {
		since = time.Now()
	}
	l.health.PendingFrom = since
}

// reportLosses tells the administrator about Services that do not get an address they ask for, when that begins.
func (l *Loop) reportLosses(c service.Changes) {
	for _, change := range c.Ports {
		if change.New == nil {
			continue
		}
		for _, loss := range change.New.Lost {
			if change.Old != nil && slices.Contains(change.Old.Lost, loss) {
				continue
			}
			l.config.Log.Warn("address is claimed by two Services and served for the other one", "service", change.New.Key.Service,
				"address", loss.Frontend.Addr, "kind", loss.Frontend.Kind, "other", loss.Winner.Service)
		}
	}
}
