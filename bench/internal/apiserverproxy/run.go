package apiserverproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/report"
	"varco.dev/bench/internal/targets"
)

// entrant is a contender: a front, or an API server itself.
type entrant struct {
	name string
	// inside says that it wants an API server of its own kind.
	inside bool
	// front makes the program for an address; nil for an API server itself.
	front func(netip.AddrPort) contender.Contender
	// metrics is where the front tells of its memory; the zero value if it does not.
	metrics string
}

// Bench measures contenders by a plan.
type Bench struct {
	plan     Plan
	entrants []entrant
	// open makes a place: with an API server as it is, or with varco inside.
	open func(ctx context.Context, inside bool, dir string) (*place, error)
	dir  string
	// profile is a folder for profiles of a front that serves them beside its metrics; empty for none.
	profile string
	log     *slog.Logger

	samples    report.Samples
	saturation float64 // requests per second of the peer, of this round
}

// run is a contender at work.
type run struct {
	entrant
	round   int
	place   *place
	at      netip.AddrPort
	process *contender.Process // nil for an API server itself
}

// run measures everything, and returns what it has measured even when it fails.
func (b *Bench) run(ctx context.Context) (report.Samples, error) {
	for round := 1; round <= b.plan.Rounds; round++ {
		b.saturation = 0
		for _, inside := range []bool{false, true} {
			for _, groups := range visits {
				if err := b.visit(ctx, inside, round, groups); err != nil {
					return b.samples, err
				}
			}
		}
	}
	return b.samples, nil
}

// visit measures some groups of the contenders of one kind of API server, which starts anew, as fronts do.
func (b *Bench) visit(ctx context.Context, inside bool, round int, groups []string) (err error) {
	groups = slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return !b.plan.wants(g) })
	order := slices.DeleteFunc(slices.Clone(b.entrants), func(e entrant) bool { return e.inside != inside })
	if len(order) == 0 || len(groups) == 0 {
		return nil
	}
	if round%2 == 0 {
		slices.Reverse(order)
	}
	b.log.Info("start an API server and targets", "round", round, "of", b.plan.Rounds)
	p, err := b.open(ctx, inside, b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var runs []*run
	defer func() {
		for _, r := range runs {
			r.stop()
		}
	}()
	for _, e := range order {
		r, err := b.start(ctx, e, p, round)
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	if err := sleep(ctx, b.plan.Settle); err != nil {
		return err
	}
	return b.turns(ctx, runs, groups)
}

// start starts a contender and waits for its first answer.
func (b *Bench) start(ctx context.Context, e entrant, p *place, round int) (r *run, err error) {
	r = &run{entrant: e, round: round, place: p, at: p.apiserver}
	check := p.targets.Check
	if e.front != nil {
		r.at = netip.AddrPortFrom(p.apiserver.Addr(), p.frontPort)
		if r.process, err = contender.Start(p.ns, e.front(r.at), filepath.Join(b.dir, "front.log")); err != nil {
			return nil, err
		}
		check = r.process.Check
	}
	if err := r.firstAnswer(ctx, check); err != nil {
		r.stop()
		return nil, fmt.Errorf("start %s: %w", e.name, err)
	}
	return r, nil
}

func (r *run) stop() {
	if r.process != nil {
		r.process.Stop()
	}
}

// retryPause is between two attempts to get an answer from what starts.
const retryPause = 50 * time.Millisecond

func (r *run) firstAnswer(ctx context.Context, check func() error) error {
	c := r.place.client(r.place.administrator)
	defer c.CloseIdleConnections()
	for deadline := time.Now().Add(startLimit); ; {
		res, err := get(ctx, c, r.url(path(web, smallPort, "/")))
		if err == nil {
			return res.Body.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer in %s: %w", startLimit, err)
		}
		if err := errors.Join(check(), sleep(ctx, retryPause)); err != nil {
			return err
		}
	}
}

func (r *run) url(path string) string { return "https://" + r.at.String() + path }

// proxy is the process that carries the requests.
func (r *run) proxy() contender.PID {
	if r.process != nil {
		return r.process.PID()
	}
	return r.place.cluster[processAPI]
}

// check says why a measure may have failed.
func (r *run) check() error {
	if r.process != nil {
		return errors.Join(r.process.Check(), r.place.targets.Check())
	}
	return r.place.targets.Check()
}

// costs are processor times of processes.
type costs map[string]time.Duration

func (c costs) sum() (out time.Duration) {
	for _, d := range c {
		out += d
	}
	return out
}

// costs returns the processor time that each process uses while fn runs: the control plane's, and the front's.
func (r *run) costs(fn func() error) (costs, error) {
	processes := maps.Clone(r.place.cluster)
	if r.process != nil {
		processes[processFront] = r.process.PID()
	}
	out := costs{}
	read := func(sign time.Duration) error {
		for name, pid := range processes {
			now, err := pid.CPU()
			if err != nil {
				return fmt.Errorf("cost of %s: %w", name, err)
			}
			out[name] += sign * now
		}
		return nil
	}
	if err := read(-1); err != nil {
		return nil, err
	}
	if err := fn(); err != nil {
		return nil, err
	}
	return out, read(1)
}

// shares divides the largest number of requests that a target got by the smallest, between two counts.
func shares(before, after targets.Counts) float64 {
	var got []int64
	for a := range after {
		got = append(got, after[a]-before[a])
	}
	return float64(slices.Max(got)) / float64(slices.Min(got))
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
