//go:build linux

package cli

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestGiveBack wants memory to be given back once after a burst has come, once after it has gone, and not meanwhile.
func TestGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var open, freed atomic.Int64
		ended := make(chan error, 1)
		go func() {
			ended <- giveBack(ctx, func() int { return int(open.Load()) }, func() { freed.Add(1) })
		}()
		for _, c := range []struct{ open, freed int64 }{
			{99, 0}, {99, 0}, {99, 0}, // too few
			{500, 0}, {900, 0}, // still coming
			{900, 1}, {900, 1}, {950, 1}, {950, 1}, // enough is known of them
			{20, 1}, {20, 2}, {20, 2},
		} {
			open.Store(c.open)
			time.Sleep(memoryLook) // the bubble's clock
			synctest.Wait()
			if got := freed.Load(); got != c.freed {
				t.Errorf("with %d open: given back %d times, want %d", c.open, got, c.freed)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
