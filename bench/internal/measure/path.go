package measure

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/world"
)

// block is how many connections go one way before the next way has its turn: short enough that whatever else the
// machine does falls on all alike.
const block = 50

// Latency is how long connections took, each from before its handshake until the server's byte was read.
type Latency struct {
	Direct, ClusterIP []time.Duration
}

// Connects makes count connections to random Services by their ClusterIPs and as many to their endpoints directly, by turns
// in each of the worlds. The result has one element for each world.
func Connects(ctx context.Context, worlds []*world.World, store *objects.Store, services, count int) ([]Latency, error) {
	out := make([]Latency, len(worlds))
	for done := 0; done < count; done += block {
		picked := make([]int, block)
		for i := range picked {
			picked[i] = rand.IntN(services)
		}
		for i, w := range worlds {
			if err := connectBlock(ctx, w, store, picked, &out[i]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// connectBlock takes both ways to each Service, one right after the other and each of them first as often as second.
func connectBlock(ctx context.Context, w *world.World, store *objects.Store, services []int, l *Latency) error {
	return probe.Run(w.Client, func(p *probe.Prober) error {
		for i, s := range services {
			ways := []struct {
				to  netip.AddrPort
				out *[]time.Duration
			}{
				{objects.ClusterIP(s), &l.ClusterIP},
				{objects.Endpoint(s, rand.IntN(objects.PerService), store.Side(s)), &l.Direct},
			}
			if i%2 == 1 {
				ways[0], ways[1] = ways[1], ways[0]
			}
			for _, way := range ways {
				began := time.Now()
				if _, err := p.Connect(way.to, client(i)); err != nil {
					return fmt.Errorf("connect to %s: %w", way.to, err)
				}
				*way.out = append(*way.out, time.Since(began))
			}
		}
		return ctx.Err()
	})
}

// Rates are connections per second to a Service of many endpoints, one for each turn.
type Rates struct {
	// Plain is without session affinity, Sticky with it.
	Plain, Sticky []float64
	// Strays is how many connections affinity has sent to another endpoint than the client's connection before.
	Strays int
}

// Affinity connects to the two Services of many endpoints by turns in each of the worlds, from many client addresses.
func Affinity(ctx context.Context, worlds []*world.World, turns, perTurn int) ([]Rates, error) {
	out := make([]Rates, len(worlds))
	for range turns {
		for i, w := range worlds {
			plain, _, err := rate(ctx, w, objects.Plain, perTurn)
			if err != nil {
				return nil, err
			}
			sticky, strays, err := rate(ctx, w, objects.Sticky, perTurn)
			if err != nil {
				return nil, err
			}
			out[i].Plain, out[i].Sticky = append(out[i].Plain, plain), append(out[i].Sticky, sticky)
			out[i].Strays += strays
		}
	}
	return out, nil
}

// rate connects count times, from each client address in its turn. It counts the clients that came to another endpoint than
// the time before.
func rate(ctx context.Context, w *world.World, service, count int) (perSecond float64, strays int, err error) {
	var last [clients]netip.Addr
	err = probe.Run(w.Client, func(p *probe.Prober) error {
		began := time.Now()
		for n := range count {
			a, err := p.Connect(objects.ClusterIP(service), client(n))
			if err != nil {
				return fmt.Errorf("connect to Service %d: %w", service, err)
			}
			if l := &last[n%clients]; *l != a.Addr {
				if l.IsValid() {
					strays++
				}
				*l = a.Addr
			}
		}
		perSecond = float64(count) / time.Since(began).Seconds()
		return ctx.Err()
	})
	return perSecond, strays, err
}
