package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"varco.dev/bench/internal/report"
	"varco.dev/bench/internal/wire"
)

// step measures one thing of one contender; the next step begins when all contenders have had their turn.
type step = func(context.Context, *run) error

// turns takes all steps. Contenders whose turn it is not do nothing but look after their backends.
func (b *Bench) turns(ctx context.Context, runs []*run, groups []string) error {
	steps := map[string][]step{
		groupIdle: {b.idle}, groupGet: b.getSteps(), groupConnect: {b.connects}, groupBulk: b.bulkSteps(),
	}
	for _, g := range groups {
		for i, step := range steps[g] {
			if err := b.turn(ctx, runs, g, i, step); err != nil {
				return err
			}
		}
	}
	return nil
}

// turn takes one step so often, each time in the other order.
func (b *Bench) turn(ctx context.Context, runs []*run, group string, number int, step step) error {
	passes := b.plan.Passes
	if group == groupIdle {
		passes = 1 // the processes are not new after it
	}
	for pass := range passes {
		order := slices.Clone(runs)
		if pass%2 == 1 {
			slices.Reverse(order)
		}
		for _, r := range order {
			b.log.Info("measure", "round", r.round, "what", group, "step", number+1, "pass", pass+1, "contender", r.name)
			if err := step(ctx, r); err != nil {
				return errors.Join(fmt.Errorf("%s of %s: %w", group, r.name, err), r.check())
			}
		}
	}
	return nil
}

func (b *Bench) getSteps() (out []step) {
	for _, n := range b.plan.Connections {
		out = append(out, func(ctx context.Context, r *run) error { return b.gets(ctx, r, n) })
	}
	return out
}

func (b *Bench) bulkSteps() (out []step) {
	for _, n := range b.plan.Bulks {
		out = append(out, func(ctx context.Context, r *run) error { return b.bulk(ctx, r, n) })
	}
	return out
}

// gets sends a request on each connection again as soon as it is answered.
func (b *Bench) gets(ctx context.Context, r *run, connections int) (err error) {
	var p *wire.Pinger
	err = r.place.do(func() (err error) {
		p, err = wire.NewPinger(r.at, connections)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if _, err := p.Run(ctx, b.plan.Warm); err != nil {
		return err
	}
	var got wire.Exchanges
	cost, err := r.cost(func() (err error) {
		got, err = p.Run(ctx, b.plan.Time)
		return err
	})
	if err != nil {
		return err
	}
	b.exchanges(r, connections, got, cost, [...]string{getRate, getP50, getP99, getCPU})
	return nil
}

// exchanges notes the rate, two percentiles and the cost under the names.
func (b *Bench) exchanges(r *run, size int, got wire.Exchanges, cost time.Duration, names [4]string) {
	took := report.AllMillis(got.Latencies)
	b.add(r, size, names[0], float64(len(took))/got.Took.Seconds())
	b.add(r, size, names[1], report.Percentile(took, 50))
	b.add(r, size, names[2], report.Percentile(took, 99))
	if r.process != nil {
		b.add(r, size, names[3], report.Micros(cost)/float64(len(took)))
	}
}

// connects makes new connections.
func (b *Bench) connects(ctx context.Context, r *run) error {
	c := wire.Connector{To: r.at}
	for i := range lanes {
		c.From = append(c.From, numbered(laneNet, 1+i))
	}
	run := func(d time.Duration) (got wire.Exchanges, err error) {
		err = r.place.do(func() (err error) {
			got, err = c.Run(ctx, d)
			return err
		})
		return got, err
	}
	if _, err := run(b.plan.Warm); err != nil {
		return err
	}
	var got wire.Exchanges
	cost, err := r.cost(func() (err error) {
		got, err = run(b.plan.Time)
		return err
	})
	if err != nil {
		return err
	}
	b.exchanges(r, lanes, got, cost, [...]string{connectRate, connectP50, connectP99, connectCPU})
	return nil
}

// bulk takes many bytes.
func (b *Bench) bulk(ctx context.Context, r *run, connections int) error {
	bytes := int64(b.plan.BulkMiB) << 20
	var took time.Duration
	cost, err := r.cost(func() error { return b.bytes(ctx, r, connections, bytes, &took) })
	if err != nil {
		return err
	}
	b.add(r, connections, bulkRate, float64(bytes)*8/1e9/took.Seconds())
	if r.process != nil {
		b.add(r, connections, bulkCPU, cost.Seconds()*(1<<10)/float64(b.plan.BulkMiB))
	}
	return nil
}

// bytes opens sockets in the place, on threads of their own.
func (b *Bench) bytes(ctx context.Context, r *run, connections int, bytes int64, took *time.Duration) (err error) {
	*took, err = wire.Bulk(ctx, r.place.do, r.at, connections, bytes)
	return err
}

// idle opens connections, which do nothing, and tells by how much the balancer has grown.
func (b *Bench) idle(ctx context.Context, r *run) (err error) {
	before, filesBefore, err := r.size()
	if err != nil {
		return err
	}
	b.add(r, one, bareMiB, report.MiB(before))
	var i *wire.Idle
	err = r.place.do(func() (err error) {
		i, err = wire.OpenIdle(r.at, b.plan.Idle)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	if err := sleep(ctx, b.plan.Settle); err != nil {
		return err
	}
	after, files, err := r.size()
	if err != nil {
		return err
	}
	n := float64(b.plan.Idle)
	b.add(r, b.plan.Idle, idleKiB, float64(after-before)/n/(1<<10))
	b.add(r, b.plan.Idle, idleFDs, float64(files-filesBefore)/n)
	return i.Ask()
}

// size is the memory of the balancer, and how many files it has open.
func (r *run) size() (memory int64, files int, err error) {
	if memory, err = r.tree.Memory(); err != nil {
		return 0, 0, err
	}
	files, err = r.tree.Descriptors()
	return memory, files, err
}
