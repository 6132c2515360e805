package measure

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"varco.dev/bench/internal/objects"
)

// churners is how many changes may be under way at a time.
const churners = 8

// Churn changes Services at a steady rate, beside what is measured.
type Churn struct {
	made atomic.Int64
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	err  error
}

// StartChurn makes perSecond changes a second until Stop. It changes Services with odd numbers only.
func StartChurn(ctx context.Context, store *objects.Store, services, perSecond int) *Churn {
	ctx, cancel := context.WithCancel(ctx)
	c := &Churn{stop: cancel}
	work := make(chan int)
	for range churners {
		c.done.Go(func() { c.change(ctx, store, work) })
	}
	c.done.Go(func() {
		defer close(work)
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case work <- odd(rand.IntN(services - 1)):
			case <-ctx.Done():
				return
			}
		}
	})
	return c
}

func (c *Churn) change(ctx context.Context, store *objects.Store, work <-chan int) {
	for s := range work {
		if _, err := store.Flip(ctx, s); err == nil {
			c.made.Add(1)
		} else if ctx.Err() == nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
		}
	}
}

// Made is the number of changes so far.
func (c *Churn) Made() int64 { return c.made.Load() }

// Stop ends the changes and returns an error if one failed.
func (c *Churn) Stop() error {
	c.stop()
	c.done.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
