package apiserverlb

import (
	"context"
	"errors"
	"sync"
	"time"

	"varco.dev/internal/relay/loop"
)

// alivePatience is how long steer may not have looked before the process counts as stuck.
const alivePatience = 10 * steerPeriod

const (
	// lastPart of the drain time is when connections that are never quiet are closed too, between two requests: lateSettledTime
	// after the backend's last word. Otherwise they would be cut at its end, in the middle of one.
	lastPart        = 3
	lateSettledTime = 20 * time.Millisecond
)

var (
	errStuck    = errors.New("stuck: nobody looks at backends any more")
	errStarting = errors.New("starting: not all listeners are open yet")
	errStopped  = errors.New("ending: no listener is opened any more")
)

// Alive returns why the process is of no use any more, or nil. What is wrong elsewhere does not count. It does not block.
func (lb *LB) Alive() error {
	if last := lb.steered.Load(); last != 0 && time.Since(time.Unix(0, last)) > alivePatience {
		return errStuck
	}
	return nil
}

// Ending says whether it is about to end, or has.
func (lb *LB) Ending() bool { return lb.draining.Load() }

// drain ends in order: whoever asks /readyz hears at once that it is over, and sends no more clients; those that come
// nevertheless are served for the delay.
func (lb *LB) drain(ctx context.Context, delay time.Duration) {
	lb.draining.Store(true)
	patience := lb.settings.Load().Drain.Timeout.Duration
	lb.log.Info("ending: takes new connections for the delay, and lets those that are open end within the drain time", "delay", delay, "drainTime", patience)
	select {
	case <-ctx.Done():
		return
	case <-lb.hurry.Done():
	case <-lb.succeeded: // clients have where to go
	case <-time.After(delay):
	}
	lb.stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(lb.hurry, cancel)()
	moving, moved := context.WithCancel(ctx)
	var dismissing, requests sync.WaitGroup
	dismissing.Go(func() { lb.dismiss(moving) })
	requests.Go(func() { lb.drainRequests(ctx) })
	err := lb.relay.Drain(ctx)
	moved()
	requests.Wait()
	dismissing.Wait()
	if err != nil {
		lb.endAll()
	}
}

// endAll ends the connections that are left after the drain time. Clients are told so in order where TLS shows them that something is
// missing: a request that met an end is sent again by most, one that met a reset is not.
func (lb *LB) endAll() {
	lb.log.Warn("ending the connections that are left after the drain time", "connections", lb.relay.Stats().Open)
	for addr := range lb.relay.Traffic() {
		lb.relay.End(addr, reasonEnding)
	}
	select {
	case <-lb.hurry.Done():
	case <-time.After(loop.DefaultLinger):
	}
}

// drainRequests lets requests of mode https end, and ends their watches.
func (lb *LB) drainRequests(ctx context.Context) {
	if lb.https == nil {
		return
	}
	if err := lb.https.Drain(ctx); err != nil {
		lb.log.Warn("ending what is left of mode https after the drain time", "error", err)
	}
}

// dismiss closes connections one by one until the deadline of the context, idle ones first: at the end none should be left
// that is cut in the middle of a request, nor should all clients come back at once.
func (lb *LB) dismiss(ctx context.Context) {
	end, _ := ctx.Deadline()
	patience := time.Until(end)
	tick := time.NewTicker(steerPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		left := time.Until(end)
		ticks, settled := max(1, int(left/steerPeriod)), settledTime
		if left < patience/lastPart {
			settled = lateSettledTime
		}
		for addr, t := range lb.relay.Traffic() {
			if most := (t.Sessions + ticks - 1) / ticks; most > 0 {
				lb.closed.add(reasonEnding, lb.shed(addr, most, settled))
			}
		}
	}
}
