package kubectlproxy

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/fakeapi"
	"varco.dev/bench/internal/load"
	"varco.dev/bench/internal/report"
)

// step measures one thing of one contender; the next step begins when all contenders have had their turn.
type step = func(context.Context, *run) error

func (b *Bench) getSteps() (out []step) {
	for _, n := range b.Plan.Connections {
		out = append(out, func(ctx context.Context, r *run) error { return b.gets(ctx, r, n) })
	}
	return out
}

func (b *Bench) gets(ctx context.Context, r *run, connections int) error {
	g, err := load.NewGetter(load.Request{To: r.address, Path: fakeapi.SmallPath}, connections)
	if err != nil {
		return err
	}
	defer g.Close()
	if _, err := g.Run(ctx, b.Plan.Warm); err != nil {
		return err
	}
	var got load.Gets
	cost, err := costs([]*contender.Process{r.process, b.server.process}, func() (err error) {
		got, err = g.Run(ctx, b.Plan.GetTime)
		return err
	})
	if err != nil {
		return err
	}
	if len(got.Latencies) == 0 {
		return fmt.Errorf("no answer in %s", b.Plan.GetTime)
	}
	count, took := float64(len(got.Latencies)), report.AllMillis(got.Latencies)
	b.add(r, connections, getRate, count/got.Took.Seconds())
	b.add(r, connections, getCPU, report.Micros(cost[0])/count)
	b.add(r, connections, getBackendCPU, report.Micros(cost[1])/count)
	b.add(r, connections, getP50, report.Percentile(took, 50))
	b.add(r, connections, getP99, report.Percentile(took, 99))
	return nil
}

// costs returns the processor time that each of the processes uses while fn runs.
func costs(of []*contender.Process, fn func() error) ([]time.Duration, error) {
	out := make([]time.Duration, len(of))
	read := func(sign time.Duration) error {
		for i, p := range of {
			now, err := p.CPU()
			if err != nil {
				return err
			}
			out[i] += sign * now
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

// bodySteps share what memory each contender had before the first of them.
func (b *Bench) bodySteps() []step {
	idle := map[*run]int64{}
	size := int64(b.Plan.BodyMiB) << 20
	download := func(chunked bool) func(context.Context, *run) (time.Duration, error) {
		return func(ctx context.Context, r *run) (time.Duration, error) {
			return load.Download(ctx, r.address, fakeapi.BodyPath(size, chunked), size)
		}
	}
	upload := func(ctx context.Context, r *run) (time.Duration, error) {
		return load.Upload(ctx, r.address, fakeapi.UploadPath, size)
	}
	return []step{
		func(_ context.Context, r *run) (err error) {
			idle[r], _, err = r.process.Memory()
			b.add(r, one, idleMiB, report.MiB(idle[r]))
			return err
		},
		func(ctx context.Context, r *run) error {
			cpu, err := b.body(ctx, r, idle[r], download(false), bodyRate, bodyMiB)
			b.add(r, one, bodyCPU, cpu.Seconds())
			return err
		},
		func(ctx context.Context, r *run) error {
			_, err := b.body(ctx, r, idle[r], download(true), chunkRate, chunkMiB)
			return err
		},
		func(ctx context.Context, r *run) error {
			_, err := b.body(ctx, r, idle[r], upload, uploadRate, uploadMiB)
			return err
		},
	}
}

// body passes one large body, and returns the processor time that it took.
func (b *Bench) body(ctx context.Context, r *run, idle int64, pass func(context.Context, *run) (time.Duration, error),
	rate, extra string) (time.Duration, error) {
	if err := r.process.ResetPeak(); err != nil {
		return 0, err
	}
	var took time.Duration
	cost, err := costs([]*contender.Process{r.process}, func() (err error) {
		took, err = pass(ctx, r)
		return err
	})
	if err != nil {
		return 0, err
	}
	_, peak, err := r.process.Memory()
	if err != nil {
		return 0, err
	}
	b.add(r, one, rate, float64(b.Plan.BodyMiB)/took.Seconds())
	b.add(r, one, extra, report.MiB(peak-idle))
	return cost[0], nil
}

func (b *Bench) watchSteps() []step {
	return []step{
		func(ctx context.Context, r *run) error { return b.watches(ctx, r, false) },
		func(ctx context.Context, r *run) error { return b.watches(ctx, r, true) },
	}
}

// series is what came of a series of events, and what it cost a process.
type series struct {
	load.Events
	cpu    time.Duration
	memory int64
}

// watches has the same watches directly and through the contender, one after the other; who is first changes with the round.
func (b *Bench) watches(ctx context.Context, r *run, atOnce bool) error {
	path, name := fakeapi.WatchPath(atOnce), func(measure string) string { return measure }
	if atOnce {
		name = together
	}
	var direct, via series
	ways := []func() error{
		func() (err error) {
			direct, err = b.events(ctx, b.server.direct, "https://"+b.server.address.String()+path, b.server.process)
			return err
		},
		func() (err error) {
			via, err = b.events(ctx, r.client, "http://"+r.address.String()+path, r.process)
			return err
		},
	}
	first := r.round % 2
	for _, way := range []func() error{ways[first], ways[1-first]} {
		if err := way(); err != nil {
			return err
		}
	}
	v, d := report.AllMillis(via.Took), report.AllMillis(direct.Took)
	for measure, value := range map[string]float64{
		viaP50: report.Percentile(v, 50), directP50: report.Percentile(d, 50),
		addedP50: report.Percentile(v, 50) - report.Percentile(d, 50),
		viaP99:   report.Percentile(v, 99), directP99: report.Percentile(d, 99),
		addedP99:  report.Percentile(v, 99) - report.Percentile(d, 99),
		eventRate: float64(len(v)) / b.Plan.WatchTime.Seconds(),
		eventCPU:  report.Micros(via.cpu) / float64(via.Seen), watchMiB: report.MiB(via.memory),
	} {
		b.add(r, b.Plan.Watches, name(measure), value)
	}
	return nil
}

// fewest is the part of the events that must have come for their times to say something; how many have is reported.
const fewest = 0.5

// events opens watches, and counts their events and what they cost the process.
func (b *Bench) events(ctx context.Context, client *http.Client, url string, of *contender.Process) (s series, err error) {
	defer client.CloseIdleConnections()
	w, err := load.OpenWatches(ctx, client, url, b.Plan.Watches)
	if err != nil {
		return s, err
	}
	defer w.Close()
	select {
	case <-time.After(b.Plan.Warm):
	case <-ctx.Done():
		return s, context.Cause(ctx)
	}
	cost, err := costs([]*contender.Process{of}, func() (err error) {
		s.Events, err = w.During(ctx, b.Plan.WatchTime)
		return err
	})
	if err != nil {
		return s, err
	}
	s.cpu = cost[0]
	want := float64(b.Plan.Watches*eventsPerSecond) * b.Plan.WatchTime.Seconds()
	if float64(len(s.Took)) < fewest*want {
		return s, fmt.Errorf("%d events of %.0f have come", len(s.Took), want)
	}
	s.memory, _, err = of.Memory()
	return s, err
}
