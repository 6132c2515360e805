package kubectlproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/fakeapi"
	"varco.dev/bench/internal/load"
	"varco.dev/bench/internal/report"
)

// Bench measures contenders by a plan.
type Bench struct {
	Plan Plan
	// Contenders get the kubeconfig and a port as further arguments.
	Contenders []contender.Contender
	// Dir gets the contenders' logs.
	Dir string
	Log *slog.Logger

	server  *server
	samples report.Samples
}

// run is a contender at work.
type run struct {
	name    string
	round   int
	process *contender.Process
	address netip.AddrPort
	// client speaks HTTP/1.1 to it.
	client *http.Client
}

// settle is how long after the start of the contenders anything is measured.
const settle = time.Second

// Run measures everything, and returns what it has measured even when it fails.
func (b *Bench) Run(ctx context.Context) (report.Samples, error) {
	for round := 1; round <= b.Plan.Rounds; round++ {
		b.Log.Info("begin", "round", round, "of", b.Plan.Rounds)
		order := slices.Clone(b.Contenders)
		if round%2 == 0 {
			slices.Reverse(order)
		}
		if err := b.serving(ctx, order, round); err != nil {
			return b.samples, err
		}
		if err := b.starts(ctx, order, round); err != nil {
			return b.samples, err
		}
	}
	return b.samples, nil
}

// serving starts all contenders and measures each of them by turns. Those whose turn it is not do nothing.
func (b *Bench) serving(ctx context.Context, order []contender.Contender, round int) error {
	var runs []*run
	defer func() {
		for _, r := range runs {
			r.process.Stop()
		}
	}()
	for _, c := range order {
		r, err := b.start(ctx, c, round)
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return b.turns(ctx, runs)
}

func (b *Bench) turns(ctx context.Context, runs []*run) error {
	for _, g := range []struct {
		name  string
		steps []step
	}{{groupBody, b.bodySteps()}, {groupGet, b.getSteps()}, {groupWatch, b.watchSteps()}} {
		if !b.Plan.wants(g.name) {
			continue
		}
		for _, step := range g.steps {
			for _, r := range runs {
				if err := step(ctx, r); err != nil {
					return errors.Join(fmt.Errorf("%s of %s: %w", g.name, r.name, err), r.process.Check(), b.server.process.Check())
				}
			}
		}
	}
	return nil
}

// start starts a contender and waits for its first answer.
func (b *Bench) start(ctx context.Context, c contender.Contender, round int) (*run, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c.Args = append(slices.Clone(c.Args), "--kubeconfig="+b.server.kubeconfig, fmt.Sprintf("--port=%d", address.Port()))
	r := &run{name: c.Name, round: round, address: address, client: &http.Client{Transport: &http.Transport{}}}
	if r.process, err = contender.Start(nil, c, filepath.Join(b.Dir, c.Name+".log")); err != nil {
		return nil, err
	}
	if err := load.FirstAnswer(ctx, r.address, fakeapi.SmallPath, r.process.Check); err != nil {
		r.process.Stop()
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return r, nil
}

// freeAddress is one that nobody listens at.
func freeAddress() (netip.AddrPort, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a port: %w", err)
	}
	defer l.Close()
	return netip.ParseAddrPort(l.Addr().String())
}

// starts measures starts alone.
func (b *Bench) starts(ctx context.Context, order []contender.Contender, round int) error {
	if !b.Plan.wants(groupStart) {
		return nil
	}
	for range b.Plan.Starts {
		for _, c := range order {
			r, err := b.start(ctx, c, round)
			if err != nil {
				return err
			}
			b.add(r, one, startMillis, report.Millis(time.Since(r.process.Started)))
			r.process.Stop()
		}
	}
	return nil
}

func (b *Bench) add(r *run, size int, name string, value float64) {
	b.samples = append(b.samples, report.Sample{Contender: r.name, Size: size, Round: r.round, Measure: name, Value: value})
	b.Log.Debug("measured", "contender", r.name, "size", size, "round", r.round, "measure", name, "value", value)
}
