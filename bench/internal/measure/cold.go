package measure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/world"
)

// Limits of a cold start.
const (
	// sampled is how many Services are asked until all answer; the first and the last are always among them.
	sampled = 32
	// coldPause is between two rounds of questions, so that the questions do not take a processor from the start.
	coldPause = time.Millisecond
	// coldLimit is when a start is given up. Upstream's grows with the square of the Services.
	coldLimit = 15 * time.Minute
)

// ErrSlow is what a measure returns that gave up.
var ErrSlow = errors.New("takes too long")

// ColdStart waits until all of a sample of the Services answer, and returns the time since the start of the process.
func ColdStart(ctx context.Context, w *world.World, p *contender.Process, services int) (took time.Duration, err error) {
	open := sample(services)
	err = probe.Run(w.Client, func(pr *probe.Prober) error {
		for {
			open = silent(pr, open)
			took = time.Since(p.Started)
			switch {
			case len(open) == 0:
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			case took > coldLimit:
				return fmt.Errorf("cold start: %w: %d of %d Services silent after %s", ErrSlow, len(open), sampled, coldLimit)
			}
			if err := p.Check(); err != nil {
				return err
			}
			probe.Sleep(coldPause)
		}
	})
	return took, err
}

// sample picks Services, the last one first.
func sample(services int) []int {
	out := []int{services - 1, 0}
	for len(out) < min(sampled, services) {
		out = append(out, rand.IntN(services))
	}
	return out
}

// silent returns those that do not answer, up to the first: the others are asked when that one does.
func silent(p *probe.Prober, services []int) []int {
	for i, s := range services {
		if _, err := p.Connect(objects.ClusterIP(s), client(s)); err != nil {
			return services[i:]
		}
	}
	return nil
}

// Verify asks every Service once, and returns how many do not answer.
func Verify(ctx context.Context, w *world.World, services int) (failed int, err error) {
	err = probe.Run(w.Client, func(p *probe.Prober) error {
		for s := range services {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if _, err := p.Connect(objects.ClusterIP(s), client(s)); err != nil {
				failed++
			}
		}
		return nil
	})
	return failed, err
}

// clients is how many addresses the client sends from.
const clients = 250

// client is an address of the client pod, number n modulo clients.
func client(n int) netip.Addr {
	b := world.ClientNet.Addr().As4()
	b[3] = byte(1 + n%clients)
	return netip.AddrFrom4(b)
}
