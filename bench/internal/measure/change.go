package measure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/world"
)

// Limits of a change.
const (
	// probeEvery is the time from the start of one connection to the start of the next.
	probeEvery = 200 * time.Microsecond
	// lead is how long connections are made before the change, so that the first ones are no slower than others.
	lead = 2 * time.Millisecond
	// changeLimit is when a change is given up.
	changeLimit = 2 * time.Minute
)

// Changer makes changes, one at a time, and waits for each to reach packets.
type Changer struct {
	World    *world.World
	Process  *contender.Process
	Store    *objects.Store
	Watch    *objects.Watch
	Services int
	// Gap is the time from one change's arrival to the next change.
	Gap time.Duration
}

// Change is how long a change took, from just before it was written.
type Change struct {
	// Written is when the API server had answered, Watched when the bench's own watch told of it, and Packet when the
	// first connection had reached the new endpoint.
	Written, Watched, Packet time.Duration
}

// Changes makes count changes and returns their times with the processor time that the proxy used for all of them,
// from a moment before the first to Gap after the last.
func (c *Changer) Changes(ctx context.Context, count int) (out []Change, cpu time.Duration, err error) {
	before, err := c.Process.CPU()
	if err != nil {
		return nil, 0, err
	}
	for range count {
		ch, err := c.one(ctx)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, ch)
		if err := pause(ctx, c.Gap); err != nil {
			return nil, 0, err
		}
	}
	after, err := c.Process.CPU()
	return out, after - before, err
}

// one moves a Service to the other side and connects to it until the other side answers.
func (c *Changer) one(ctx context.Context) (Change, error) {
	service := even(rand.IntN(c.Services))
	side := c.Store.Side(service).Other()
	ctx, cancel := context.WithTimeoutCause(ctx, changeLimit, ErrSlow)
	defer cancel()
	arrived := make(chan arrival, 1)
	go func() { arrived <- c.await(ctx, service, side) }()
	if err := pause(ctx, lead); err != nil {
		return Change{}, err
	}
	start := time.Now()
	version, err := c.Store.Flip(ctx, service)
	if err != nil {
		return Change{}, err
	}
	written := time.Since(start)
	a := <-arrived
	if a.err != nil {
		return Change{}, fmt.Errorf("change of Service %d: %w", service, a.err)
	}
	watched, err := c.Watch.Await(ctx, version)
	return Change{Written: written, Watched: watched.Sub(start), Packet: a.at.Sub(start)}, err
}

// arrival is when a connection reached the awaited side.
type arrival struct {
	at  time.Time
	err error
}

// await connects to a Service until a side answers.
func (c *Changer) await(ctx context.Context, service int, side world.Side) (a arrival) {
	to := objects.ClusterIP(service)
	a.err = probe.Run(c.World.Client, func(p *probe.Prober) error {
		for n := 0; ; n++ {
			began := time.Now()
			got, err := p.Connect(to, client(n))
			a.at = time.Now()
			if err == nil && got.Name == side.Name() {
				return nil
			}
			if ctx.Err() != nil {
				return errors.Join(context.Cause(ctx), err)
			}
			if err := c.Process.Check(); err != nil {
				return err
			}
			probe.Sleep(probeEvery - time.Since(began))
		}
	})
	return a
}

// pause waits, or returns why it cannot.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// even and odd divide the Services: those whose changes are timed, and those that change beside them.
func even(n int) int { return n &^ 1 }
func odd(n int) int  { return n | 1 }
