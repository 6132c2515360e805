package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/measure"
	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/report"
	"varco.dev/bench/internal/world"
)

// Bench measures contenders by a plan.
type Bench struct {
	Plan       Plan
	Contenders []contender.Contender
	// API is the address of the API server on this machine. The contenders' kubeconfigs lead to world.APIServer.
	API   string
	Store *objects.Store
	Watch *objects.Watch
	// Dir gets the contenders' logs.
	Dir string
	// Profile, if not empty, is a folder for processor profiles of the changes.
	Profile string
	Log     *slog.Logger

	samples report.Samples
}

// run is a contender at work in a world of its own.
type run struct {
	contender.Contender
	size, round int
	world       *world.World
	process     *contender.Process
}

// Run measures everything, and returns what it has measured even when it fails.
func (b *Bench) Run(ctx context.Context) (report.Samples, error) {
	for _, size := range b.Plan.Sizes {
		began := time.Now()
		if err := b.Store.Grow(ctx, size); err != nil {
			return b.samples, err
		}
		b.Log.Info("objects are written", "services", size, "took", time.Since(began).Round(time.Millisecond))
		for round := 1; round <= b.Plan.rounds(size); round++ {
			if err := b.round(ctx, size, round); err != nil {
				return b.samples, err
			}
		}
	}
	return b.samples, nil
}

// round lets each contender start, measures it, ends it, and then connects through what all of them have left in the
// kernel, by turns.
func (b *Bench) round(ctx context.Context, size, round int) (err error) {
	order := slices.Clone(b.Contenders)
	if round%2 == 0 {
		slices.Reverse(order)
	}
	var runs []*run
	defer func() {
		for _, r := range runs {
			err = errors.Join(err, r.world.Close())
		}
	}()
	for _, c := range order {
		r := &run{Contender: c, size: size, round: round}
		if r.world, err = world.New(ctx, b.API); err != nil {
			return err
		}
		runs = append(runs, r)
		if err := b.control(ctx, r); err != nil {
			return fmt.Errorf("%s with %d Services: %w", c.Name, size, err)
		}
	}
	return b.paths(ctx, runs)
}

// control measures the process of a contender, from its start to its end.
func (b *Bench) control(ctx context.Context, r *run) (err error) {
	log := filepath.Join(b.Dir, r.Name+".log")
	if r.process, err = contender.Start(r.world.Node, r.Contender, log); err != nil {
		return err
	}
	defer r.process.Stop()
	if err := b.cold(ctx, r); err != nil {
		return err
	}
	if b.Plan.wants(groupChange, r.size) {
		if err := b.changes(ctx, r); err != nil {
			return err
		}
	}
	if b.Plan.wants(groupLoaded, r.size) {
		return b.loaded(ctx, r)
	}
	return nil
}

func (b *Bench) cold(ctx context.Context, r *run) error {
	took, err := measure.ColdStart(ctx, r.world, r.process, r.size)
	if err != nil {
		return err
	}
	if !b.Plan.wants(groupCold, r.size) {
		return nil
	}
	b.add(r, coldSeconds, took.Seconds())
	silent, err := measure.Verify(ctx, r.world, r.size)
	if err != nil {
		return err
	}
	b.add(r, unanswered, float64(silent))
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	now, peak, err := r.process.Memory()
	if err != nil {
		return err
	}
	b.add(r, rssMiB, mebibytes(now))
	b.add(r, peakMiB, mebibytes(peak))
	return nil
}

func (b *Bench) changer(r *run, gap time.Duration) *measure.Changer {
	return &measure.Changer{World: r.world, Process: r.process, Store: b.Store, Watch: b.Watch, Services: r.size, Gap: gap}
}

func (b *Bench) changes(ctx context.Context, r *run) error {
	stop := b.profile(ctx, r, "change")
	defer stop()
	count := b.Plan.changes(r.size)
	out, cpu, err := b.changer(r, b.Plan.Gap).Changes(ctx, count)
	if err != nil {
		return err
	}
	for _, c := range out {
		b.add(r, writtenMillis, millis(c.Written))
		b.add(r, watchedMillis, millis(c.Watched))
		b.add(r, changeMillis, millis(c.Packet))
		b.add(r, answerMillis, millis(c.Packet-c.Written))
	}
	b.add(r, changeCPU, millis(cpu)/float64(count))
	return nil
}

// loadedGap is between timed changes where others are never far.
const loadedGap = 100 * time.Millisecond

func (b *Bench) loaded(ctx context.Context, r *run) (err error) {
	stop := b.profile(ctx, r, "loaded")
	defer stop()
	began := time.Now()
	churn := measure.StartChurn(ctx, b.Store, r.size, b.Plan.PerSecond)
	defer func() { err = errors.Join(err, churn.Stop()) }()
	out, cpu, err := b.changer(r, loadedGap).Changes(ctx, b.Plan.Loaded)
	if err != nil {
		return err
	}
	made := float64(churn.Made()) + float64(len(out))
	for _, c := range out {
		b.add(r, loadedWatched, millis(c.Watched))
		b.add(r, loadedMillis, millis(c.Packet))
		b.add(r, loadedAnswer, millis(c.Packet-c.Written))
	}
	b.add(r, loadedRate, made/time.Since(began).Seconds())
	b.add(r, loadedCPU, millis(cpu)/made)
	return nil
}

// turns and perTurn are connections to the Services of many endpoints.
const (
	turns   = 10
	perTurn = 500
)

// paths measures connections. The contenders have ended: what they would do meanwhile is not part of the path.
func (b *Bench) paths(ctx context.Context, runs []*run) error {
	size := runs[0].size
	var worlds []*world.World
	for _, r := range runs {
		worlds = append(worlds, r.world)
	}
	if b.Plan.wants(groupPath, size) {
		latencies, err := measure.Connects(ctx, worlds, b.Store, size, b.Plan.Connects)
		if err != nil {
			return err
		}
		for i, l := range latencies {
			via, direct := micros(l.ClusterIP), micros(l.Direct)
			b.add(runs[i], clusterIPP50, report.Percentile(via, 50))
			b.add(runs[i], clusterIPP99, report.Percentile(via, 99))
			b.add(runs[i], addedP50, report.Percentile(via, 50)-report.Percentile(direct, 50))
			b.add(runs[i], directP50, report.Percentile(direct, 50))
			b.add(runs[i], directP99, report.Percentile(direct, 99))
		}
	}
	if !b.Plan.wants(groupAffinity, size) {
		return nil
	}
	rates, err := measure.Affinity(ctx, worlds, turns, perTurn)
	if err != nil {
		return err
	}
	for i, r := range rates {
		plain, sticky := report.Median(r.Plain), report.Median(r.Sticky)
		b.add(runs[i], plainRate, plain)
		b.add(runs[i], stickyRate, sticky)
		b.add(runs[i], stickyQuotient, sticky/plain)
		b.add(runs[i], stickyStrays, float64(r.Strays))
	}
	return nil
}

func (b *Bench) add(r *run, name string, value float64) {
	b.samples = append(b.samples, report.Sample{Contender: r.Name, Size: r.size, Round: r.round, Measure: name, Value: value})
	b.Log.Debug("measured", "contender", r.Name, "services", r.size, "round", r.round, "measure", name, "value", value)
}

func mebibytes(n int64) float64      { return float64(n) / (1 << 20) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func micros(ds []time.Duration) []float64 {
	out := make([]float64, len(ds))
	for i, d := range ds {
		out[i] = float64(d) / float64(time.Microsecond)
	}
	return out
}
