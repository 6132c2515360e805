package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/report"
	"varco.dev/bench/internal/wire"
)

// Bench measures contenders by a plan.
type Bench struct {
	plan    Plan
	names   []string // of the contenders, the one with the bars first
	program func(name string, j job) (contender.Contender, error)
	// open makes a place without API servers, openCluster one with three.
	open        func(ctx context.Context, dir string) (*place, error)
	openCluster func(ctx context.Context, dir string) (*cluster, error)
	dir         string
	log         *slog.Logger

	samples report.Samples
}

// run is a contender at work.
type run struct {
	name    string
	round   int
	place   *place
	at      netip.AddrPort
	process *contender.Process // nil if there is no balancer
	tree    contender.Tree
}

// run measures everything, and returns what it has measured even when it fails.
func (b *Bench) run(ctx context.Context) (report.Samples, error) {
	for round := 1; round <= b.plan.Rounds; round++ {
		for _, groups := range visits {
			if groups = b.plan.only(groups); len(groups) == 0 {
				continue
			}
			if err := b.speed(ctx, round, groups); err != nil {
				return b.samples, err
			}
		}
		if groups := b.plan.only(faults); len(groups) > 0 {
			if err := b.faults(ctx, round, groups); err != nil {
				return b.samples, err
			}
		}
	}
	return b.samples, nil
}

// speed measures some groups in a place without API servers, by turns.
func (b *Bench) speed(ctx context.Context, round int, groups []string) (err error) {
	names := slices.DeleteFunc(slices.Clone(b.names), onlyFaults)
	if groups[0] == groupIdle {
		names = slices.DeleteFunc(names, onlySpeed)
	}
	if round%2 == 0 {
		slices.Reverse(names)
	}
	b.log.Info("start backends and balancers", "round", round, "of", b.plan.Rounds)
	p, err := b.open(ctx, b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	runs, stop, err := b.start(ctx, names, p, round)
	defer stop()
	if err != nil {
		return err
	}
	if err := sleep(ctx, b.plan.Settle); err != nil {
		return err
	}
	return b.turns(ctx, runs, groups)
}

// start starts contenders and waits for an answer through each. What it returns for the end is never nil.
func (b *Bench) start(ctx context.Context, names []string, p *place, round int) (runs []*run, stop func(), err error) {
	stop = func() {
		for _, r := range runs {
			if r.process != nil {
				r.process.Stop()
			}
		}
	}
	for _, name := range names {
		r := &run{name: name, round: round, place: p, at: p.backends[0]}
		runs = append(runs, r)
		if err := b.startOne(ctx, r, uint16(slices.Index(contenders, name))); err != nil {
			return runs, stop, fmt.Errorf("start %s: %w", name, err)
		}
	}
	return runs, stop, nil
}

func (b *Bench) startOne(ctx context.Context, r *run, number uint16) (err error) {
	check := func() error { return nil }
	if r.name != direct {
		p := r.place
		r.at = netip.AddrPortFrom(p.balancer.Addr(), p.balancer.Port()+number)
		dir := filepath.Join(p.dir, "balancer-"+strings.ReplaceAll(r.name, " ", "-"))
		c, err := b.program(r.name, job{Dir: dir, At: r.at, Backends: p.backends, CAFile: p.caFile, Limit: b.plan.limit(), Files: b.plan.files()})
		if err != nil {
			return err
		}
		if r.process, err = contender.Start(p.ns, c, dir+".log"); err != nil {
			return err
		}
		check = r.process.Check
	}
	if err := await(ctx, check, func() error { return r.answer(ctx) }); err != nil {
		return err
	}
	if r.process != nil {
		r.tree, err = r.process.PID().Tree()
	}
	return err
}

// answer gets one.
func (r *run) answer(ctx context.Context) error {
	if r.place.server == nil {
		client := r.place.client(r.at)
		defer client.CloseIdleConnections()
		_, err := get(ctx, client, versionURL)
		return err
	}
	return r.place.do(func() error {
		i, err := wire.OpenIdle(r.at, 1)
		if err != nil {
			return err
		}
		return i.Close()
	})
}

// check says why a measure may have failed.
func (r *run) check() (err error) {
	if r.process != nil {
		err = r.process.Check()
	}
	if r.place.server != nil {
		err = errors.Join(err, r.place.server.Check())
	}
	return err
}

// cost is the processor time that the balancer uses while fn runs.
func (r *run) cost(fn func() error) (time.Duration, error) {
	before, err := r.tree.CPU()
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	after, err := r.tree.CPU()
	return after - before, err
}

func (b *Bench) add(r *run, size int, name string, value float64) {
	b.samples = append(b.samples, report.Sample{Contender: r.name, Size: size, Round: r.round, Measure: name, Value: value})
	b.log.Debug("measured", "contender", r.name, "size", size, "round", r.round, "measure", name, "value", value)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
