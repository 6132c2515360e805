package kubeproxy

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"varco.dev/internal/kernel"
	"varco.dev/internal/service"
)

// Bounds of the work on flows. A walk over 100,000 flows takes the processor for 0.2 seconds.
const (
	minWalkPause = time.Second      // between two walks; what changes meanwhile shares the next one
	walkShare    = 5                // the pause is at least so many times the last walk, so that walks never fill a core
	maxWalkPause = 30 * time.Second // between two walks, also of those that fail
	maxReasons   = 1 << 16          // endpoints and frontends to look for; where there are more, all flows are judged
)

// flowTable is the kernel's table of tracked connections.
type flowTable interface {
	// Delete deletes the flows of these families and protocols that stale chooses, and returns how many. It blocks as long
	// as a walk over the table takes, and may be repeated. An errors.ErrUnsupported is final: nothing is tracked.
	Delete(ctx context.Context, f []service.Family, p []service.Protocol, stale func(kernel.Flow) bool) (int, error)
}

// cleanerConfig is the configuration of a cleaner.
type cleanerConfig struct {
	Flows    flowTable        // required
	Families []service.Family // that are served
	// Drain has established TCP connections to endpoints that are gone end too: their next packet is answered by a reset.
	Drain bool
	// Local tells whether an address is this machine's own; it is asked where NodePorts are served at all of them. Optional.
	Local  func(netip.Addr) bool
	Report func(f service.Family, took time.Duration, deleted int) // optional: called after each walk; must not block
	Log    *slog.Logger                                            // required
}

// cleaner deletes flows whose translation is out of date. The kernel decides once per flow where it goes: without the
// cleaner, a client that keeps sending from the same port stays with an endpoint that is gone.
type cleaner struct {
	config cleanerConfig
	wake   chan struct{} // capacity 1: there are reasons for a walk

	mu      sync.Mutex // guards the fields below
	rules   flowRules
	reasons reasons // for the next walk
}

// newCleaner returns a cleaner that does nothing before Run.
func newCleaner(c cleanerConfig) *cleaner {
	if c.Local == nil {
		c.Local = func(netip.Addr) bool { return false }
	}
	if c.Report == nil {
		c.Report = func(service.Family, time.Duration, int) {}
	}
	return &cleaner{config: c, wake: make(chan struct{}, 1), rules: newFlowRules(c.Drain, c.Local)}
}

// applied takes what was applied to the kernel: changes, or with full the whole state. It does not block.
func (c *cleaner) applied(changes service.Changes, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules.apply(changes, full, &c.reasons)
	if !c.reasons.empty() {
		c.look()
	}
}

func (c *cleaner) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run deletes stale flows until the context ends or the kernel turns out to track none; then it returns nil.
func (c *cleaner) Run(ctx context.Context) error {
	pause := minWalkPause
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
		took, err := c.clean(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errors.ErrUnsupported):
			c.config.Log.Warn("cannot delete stale connections, because the kernel tracks none", "error", err)
			return nil
		case err != nil:
			pause = min(2*pause, maxWalkPause)
			c.config.Log.Error("cannot delete stale connections, trying again", "after", pause, "error", err)
		default:
			pause = max(minWalkPause, min(walkShare*took, maxWalkPause))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// clean walks once for all reasons that have come together. After an error they stay.
func (c *cleaner) clean(ctx context.Context) (time.Duration, error) {
	c.mu.Lock()
	why := c.reasons
	c.reasons = reasons{}
	look := c.rules.scopes(why)
	c.mu.Unlock()

	start := time.Now()
	var failures []error
	for _, f := range c.config.Families {
		if p := look.of(f); len(p) > 0 {
			failures = append(failures, c.walk(ctx, f, p, why))
		}
	}
	err := errors.Join(failures...)
	if err != nil {
		c.mu.Lock()
		c.reasons.add(why)
		c.mu.Unlock()
		c.look()
	}
	return time.Since(start), err
}

func (c *cleaner) walk(ctx context.Context, f service.Family, protocols []service.Protocol, why reasons) error {
	start := time.Now()
	deleted, err := c.config.Flows.Delete(ctx, []service.Family{f}, protocols, func(flow kernel.Flow) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.rules.stale(flow, why)
	})
	took := time.Since(start)
	c.config.Report(f, took, deleted)
	c.config.Log.Debug("looked for stale connections", "family", f, "protocols", protocols, "deleted", deleted, "took", took)
	return err
}
