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
//
// The first change after a quiet time is applied at once: a transaction of a small change takes a few hundredths of a
// millisecond. Those that follow are gathered for a moment.
const (
	DefaultIdle        = 250 * time.Microsecond // quiet time after which changes are applied
	DefaultMaxWait     = 5 * time.Millisecond   // time after which they are applied in any case
	DefaultMinRetry    = 100 * time.Millisecond // pause after the whole state could not be applied; it doubles
	DefaultMaxRetry    = 30 * time.Second       // longest pause
	DefaultFirstRepair = 20 * time.Millisecond  // time from Repair to applying the whole state; another copy of the proxy may only be ahead
	DefaultMinRepair   = 100 * time.Millisecond // the same for the next Repair; it doubles
	DefaultCalm        = 2 * time.Second        // time without a Repair, beside twice the last pause, after which it is the shortest again
	DefaultResync      = time.Hour              // how often everything is applied anew, against silent damage
	DefaultStuckAfter  = time.Minute            // a change older than this makes the loop unhealthy
	DefaultLogPause    = 10 * time.Second       // between messages about failures
	maxTriggers        = 10000                  // times of changes that are kept while nothing can be applied
	maxLosses          = 10                     // addresses of one port that messages name at a time
)

// Config of a Loop.
type Config struct {
	Table  *service.Table  // required: the loop owns it from now on
	Plane  DataPlane       // required
	Start  <-chan struct{} // required: closed once the table knows all objects; nothing is applied before
	Log    *slog.Logger    // required
	Report func(Result)    // optional: called after each attempt to apply something; must not block
	// MinPause is the least time between two times that changes are applied. 0: none.
	MinPause time.Duration
	// Applied is called after each success with what the data plane now has: changes since the last call, or with full the
	// whole state as Changes from nothing. Calls come one after the other and must not block. Optional.
	Applied func(c service.Changes, full bool)
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
	repair chan string   // capacity 1: why the whole state is to be applied

	mu       sync.Mutex // guards the fields below
	table    *service.Table
	health   Health
	started  bool
	flying   time.Time   // since when the changes waited that are being applied; zero: none are
	triggers []time.Time // of changes that are not applied
	ledger   ledger
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
	if c.Applied == nil {
		c.Applied = func(service.Changes, bool) {}
	}
	return &Loop{config: c, wake: make(chan struct{}, 1), repair: make(chan string, 1), table: c.Table, ledger: newLedger()}
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

// View lets fn look at the table, alone. What it changes would go unnoticed. It is safe for concurrent use.
func (l *Loop) View(fn func(*service.Table)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(l.table)
}

// Repair has the whole state applied soon, because of what someone else has done; reason says it in the log. It does not
// block and is safe for concurrent use.
func (l *Loop) Repair(reason string) {
	select {
	case l.repair <- reason:
	default: // the one that waits does it
	}
}

// Health returns the present state. It is safe for concurrent use.
func (l *Loop) Health() Health {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.health
	if !l.flying.IsZero() {
		h.PendingFrom = l.flying
	}
	return h
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
	r := runner{Loop: l, resync: resync.C, retry: DefaultMinRetry}
	full := true
	for {
		err := l.apply(ctx, full)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("serve Services on this node: %w", err)
		}
		if full = r.next(ctx, full, err); ctx.Err() != nil {
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

// apply takes the changes out of the table and applies them, or the whole state.
func (l *Loop) apply(ctx context.Context, full bool) error {
	changes, losses := l.take(full)
	l.reportLosses(losses)
	if !full && changes.Empty() {
		l.finish(nil, false)
		if len(changes.Health)+len(changes.Triggers) > 0 {
			l.config.Applied(changes, false)
		}
		return nil
	}
	start := time.Now()
	var err error
	if full {
		err = l.config.Plane.Replace(ctx, changes)
	} else {
		err = l.config.Plane.Update(ctx, changes)
	}
	took := time.Since(start)
	l.config.Report(Result{Full: full, Took: took, Err: err})
	l.finish(err, true)
	if err != nil {
		return err
	}
	if full {
		l.config.Log.Info("applied all Services", "ports", len(changes.Ports), "took", took)
	}
	l.config.Applied(changes, full)
	return nil
}

// take returns what is to be applied, which is the changes since the last call or the whole state, and the changes.
func (l *Loop) take(full bool) (apply, changes service.Changes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changes = l.table.Changes()
	since := l.health.PendingFrom
	if since.IsZero() {
		since = time.Now()
	}
	l.flying, l.health.PendingFrom = l.health.PendingFrom, time.Time{}
	l.ledger.take(changes.Ports, since)
	l.triggers = append(l.triggers, changes.Triggers...)
	l.triggers = l.triggers[max(0, len(l.triggers)-maxTriggers):]
	apply = changes
	if full {
		apply = l.table.All()
	}
	apply.Triggers = l.triggers
	return apply, changes
}

// finish takes note of how an attempt ended; tried is false if there was nothing for the data plane to do.
func (l *Loop) finish(err error, tried bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := l.flying
	l.flying = time.Time{}
	if err != nil {
		if since.IsZero() {
			since = time.Now()
		}
		l.health.Err, l.health.PendingFrom = err, since
		return
	}
	l.triggers = nil
	if !tried {
		return
	}
	now := time.Now()
	l.health.Err, l.health.Synced, l.health.LastSuccess = nil, true, now
	l.ledger.settle(now)
}

// reportLosses tells the administrator about Services that do not get an address they ask for, when that begins. Whoever
// may write a Service may have it ask for very many.
func (l *Loop) reportLosses(c service.Changes) {
	for _, change := range c.Ports {
		lost := newLosses(change)
		for _, loss := range lost[:min(len(lost), maxLosses)] {
			l.config.Log.Warn("address is claimed by two Services and served for the other one", "service", change.New.Key.Service,
				"address", loss.Frontend.Addr, "kind", loss.Frontend.Kind, "other", loss.Winner.Service)
		}
		if more := len(lost) - maxLosses; more > 0 {
			l.config.Log.Warn("more addresses of a Service are served for others", "service", change.New.Key.Service, "addresses", more)
		}
	}
}

// newLosses returns the losses of a port that it did not have before.
func newLosses(c service.Change) (out []service.Loss) {
	if c.New == nil {
		return nil
	}
	var before []service.Loss // sorted
	if c.Old != nil {
		before = c.Old.Lost
	}
	for _, loss := range c.New.Lost {
		i, found := slices.BinarySearchFunc(before, loss.Frontend, func(l service.Loss, f service.Frontend) int { return l.Frontend.Compare(f) })
		if !found || before[i] != loss {
			out = append(out, loss)
		}
	}
	return out
}
