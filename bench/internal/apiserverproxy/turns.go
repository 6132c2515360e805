package apiserverproxy

import (
	"context"
	"errors"
	"fmt"

	"varco.dev/bench/internal/load"
	"varco.dev/bench/internal/report"
)

// step measures one thing of one contender; the next step begins when all contenders have had their turn.
type step = func(context.Context, *run) error

// turns takes all steps. Contenders whose turn it is not do nothing.
func (b *Bench) turns(ctx context.Context, runs []*run, groups []string) error {
	steps := map[string][]step{
		groupSocket: {b.sockets},
		groupPage:   {b.page, b.parts},
		groupGet:    b.getSteps(),
		groupDead:   {b.dead},
		groupPace:   b.paceSteps(),
		groupFlow:   b.flowSteps(),
	}
	for _, g := range groups {
		for i, step := range steps[g] {
			for _, r := range runs {
				b.log.Info("measure", "round", r.round, "what", g, "step", i+1, "of", len(steps[g]), "contender", r.name)
				if err := step(ctx, r); err != nil {
					return errors.Join(fmt.Errorf("%s of %s: %w", g, r.name, err), r.check())
				}
			}
		}
	}
	return nil
}

func (b *Bench) getSteps() (out []step) {
	for _, n := range b.plan.Connections {
		out = append(out, func(ctx context.Context, r *run) error { return b.gets(ctx, r, n) })
	}
	return append(out, b.withToken)
}

// small is a request of an administrator, or of a service account with a token.
func (r *run) small(service string, token bool) load.Request {
	req := load.Request{To: r.at, Path: path(service, smallPort, "/small"), TLS: r.place.administrator}
	if token {
		req.TLS, req.Token = r.place.stranger, r.place.token
	}
	return req
}

// saturate sends a request on each connection again as soon as it is answered, and tells what that cost.
func (b *Bench) saturate(ctx context.Context, r *run, req load.Request, connections int) (got load.Gets, costs costs, err error) {
	g, err := r.place.getter(req, connections)
	if err != nil {
		return got, nil, err
	}
	defer g.Close()
	if _, err := g.Run(ctx, b.plan.Warm); err != nil {
		return got, nil, err
	}
	defer b.profiling(ctx, r, fmt.Sprintf("get-%d", connections), fmt.Sprintf("profile?seconds=%d", seconds(b.plan.GetTime)))()
	costs, err = r.costs(func() (err error) {
		got, err = g.Run(ctx, b.plan.GetTime)
		return err
	})
	if err == nil && len(got.Latencies) == 0 {
		err = fmt.Errorf("no answer in %s; failed: %d, such as %s", b.plan.GetTime, got.Failed, got.Failure)
	}
	return got, costs, err
}

func rate(g load.Gets) float64 { return float64(len(g.Latencies)) / g.Took.Seconds() }

func (b *Bench) gets(ctx context.Context, r *run, connections int) error {
	before, err := r.place.counted(ctx)
	if err != nil {
		return err
	}
	got, costs, err := b.saturate(ctx, r, r.small(web, false), connections)
	if err != nil {
		return err
	}
	after, err := r.place.counted(ctx)
	if err != nil {
		return err
	}
	count, took := float64(len(got.Latencies)), report.AllMillis(got.Latencies)
	b.add(r, connections, getRate, rate(got))
	b.add(r, connections, getP50, report.Percentile(took, 50))
	b.add(r, connections, getP99, report.Percentile(took, 99))
	b.add(r, connections, spread, shares(before, after))
	b.add(r, connections, getCPU, report.Micros(costs.sum())/count)
	for name, c := range costs {
		b.add(r, connections, of(getCPU, name), report.Micros(c)/count)
	}
	return nil
}

func (b *Bench) withToken(ctx context.Context, r *run) error {
	got, _, err := b.saturate(ctx, r, r.small(web, true), mainConnections)
	if err != nil {
		return err
	}
	b.add(r, mainConnections, tokenRate, rate(got))
	return nil
}

// dead asks a Service of which one endpoint is gone.
func (b *Bench) dead(ctx context.Context, r *run) error {
	req := r.small(oneDead, false)
	req.Failures = true
	got, _, err := b.saturate(ctx, r, req, mainConnections)
	if err != nil {
		return err
	}
	if got.Failed > 0 {
		b.log.Debug("failed", "contender", r.name, "first", got.Failure)
	}
	b.add(r, mainConnections, deadFailed, 100*float64(got.Failed)/float64(got.Failed+len(got.Latencies)))
	b.add(r, mainConnections, deadRate, rate(got))
	b.add(r, mainConnections, deadP99, report.Percentile(report.AllMillis(got.Latencies), 99))
	return nil
}

// paceSteps begin with what the peer can do; without a peer it is what the first contender can do.
func (b *Bench) paceSteps() []step {
	out := []step{func(ctx context.Context, r *run) error {
		if b.saturation > 0 && r.name != peer {
			return nil
		}
		got, _, err := b.saturate(ctx, r, r.small(web, false), mainConnections)
		b.saturation = rate(got)
		return err
	}}
	for _, n := range b.plan.Loads {
		out = append(out, func(ctx context.Context, r *run) error { return b.pace(ctx, r, n) })
	}
	return out
}

// pace asks at a part of the peer's saturation, in percent.
func (b *Bench) pace(ctx context.Context, r *run, percent int) error {
	g, err := r.place.getter(r.small(web, false), mainConnections)
	if err != nil {
		return err
	}
	defer g.Close()
	perSecond := b.saturation * float64(percent) / 100
	got, err := g.Pace(ctx, perSecond, b.plan.Warm, b.plan.PaceTime)
	if err != nil {
		return err
	}
	took := report.AllMillis(got.Latencies)
	b.add(r, percent, pacePerSec, perSecond)
	b.add(r, percent, paceP50, report.Percentile(took, 50))
	b.add(r, percent, paceP99, report.Percentile(took, 99))
	return nil
}
