package apiserverproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"varco.dev/bench/internal/load"
	"varco.dev/bench/internal/report"
	"varco.dev/bench/internal/targets"
)

// sockets opens WebSockets, which do nothing, and tells by how much the proxy has grown.
func (b *Bench) sockets(ctx context.Context, r *run) (err error) {
	before, _, err := r.proxy().Memory()
	if err != nil {
		return err
	}
	usedBefore, err := r.memory(ctx)
	if err != nil {
		return err
	}
	b.add(r, one, idleMiB, report.MiB(before))
	dial := func(ctx context.Context) (net.Conn, error) {
		c, err := r.place.dial(ctx, "tcp", r.at.String())
		if err != nil {
			return nil, err
		}
		return tls.Client(c, r.place.administrator), nil
	}
	s, err := load.OpenSockets(ctx, dial, path(web, pagePort, targets.SocketPath), b.plan.Sockets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := errors.Join(s.Echo(), sleep(ctx, b.plan.Settle)); err != nil {
		return err
	}
	after, _, err := r.proxy().Memory()
	b.add(r, b.plan.Sockets, socketKiB, float64(after-before)/float64(b.plan.Sockets)/(1<<10))
	used, usedErr := r.memory(ctx)
	if r.metrics != "" {
		b.add(r, b.plan.Sockets, socketUsedKiB, float64(used.all()-usedBefore.all())/float64(b.plan.Sockets)/(1<<10))
	}
	b.profiling(ctx, r, "sockets", "heap?gc=1")()
	return errors.Join(err, usedErr, s.Echo())
}

// page passes a large HTML page. What it takes of the heap is told by pages of a MiB, which go through the same code.
func (b *Bench) page(ctx context.Context, r *run) error {
	c := r.place.client(r.place.administrator)
	defer c.CloseIdleConnections()
	small, err := b.heapDuring(ctx, r, func() error { return b.smallPages(ctx, r, c) })
	if err != nil {
		return err
	}
	before, _, err := r.proxy().Memory()
	if err := errors.Join(err, r.proxy().ResetPeak()); err != nil {
		return err
	}
	var got load.Fetched
	large, err := b.heapDuring(ctx, r, func() (err error) {
		got, err = r.fetchPage(ctx, c, b.plan.PageMiB)
		return err
	})
	if err != nil {
		return err
	}
	_, peak, err := r.proxy().Memory()
	b.add(r, b.plan.PageMiB, pageRate, float64(b.plan.PageMiB)/got.Whole.Seconds())
	b.add(r, b.plan.PageMiB, pageMiB, report.MiB(peak-before))
	if r.metrics != "" {
		b.add(r, b.plan.PageMiB, pageHeapMiB, report.MiB(large-small))
	}
	return err
}

func (b *Bench) smallPages(ctx context.Context, r *run, c *http.Client) error {
	for began := time.Now(); time.Since(began) < b.plan.PageTime; {
		if _, err := r.fetchPage(ctx, c, 1); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) fetchPage(ctx context.Context, c *http.Client, mib int) (load.Fetched, error) {
	got, err := load.Fetch(ctx, c, r.url(path(web, pagePort, targets.PagePath(mib))))
	if err == nil && got.Bytes < int64(mib)<<20 {
		err = fmt.Errorf("the page has %d bytes, want %d MiB", got.Bytes, mib)
	}
	return got, err
}

// partCount is how many parts a page has that comes slowly.
const partCount = 3

// parts gets a page that comes slowly.
func (b *Bench) parts(ctx context.Context, r *run) error {
	c := r.place.client(r.place.administrator)
	defer c.CloseIdleConnections()
	got, err := load.Fetch(ctx, c, r.url(path(web, pagePort, targets.StreamPath(partCount, b.plan.Gap))))
	if err != nil {
		return err
	}
	if least := (partCount - 1) * b.plan.Gap; got.Whole < least {
		return fmt.Errorf("the page came whole in %s: its target needs %s", got.Whole, least)
	}
	b.add(r, one, firstMillis, report.Millis(got.First))
	b.add(r, one, wholeMillis, report.Millis(got.Whole))
	return nil
}

func (b *Bench) flowSteps() (out []step) {
	for _, n := range b.plan.Flows {
		out = append(out, func(ctx context.Context, r *run) error { return b.flow(ctx, r, n) })
	}
	return out
}

// flow lets bytes flow at a rate of so many Mbit/s.
func (b *Bench) flow(ctx context.Context, r *run, mbits int) error {
	c := r.place.client(r.place.administrator)
	defer c.CloseIdleConnections()
	url := r.url(path(web, pagePort, targets.FlowPath(int64(mbits)*1e6/8, b.plan.FlowTime)))
	defer b.profiling(ctx, r, fmt.Sprintf("flow-%d", mbits), fmt.Sprintf("profile?seconds=%d", seconds(b.plan.FlowTime)))()
	var got load.Fetched
	costs, err := r.costs(func() (err error) {
		got, err = load.Fetch(ctx, c, url)
		return err
	})
	if err != nil {
		return err
	}
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / got.Whole.Seconds() }
	b.add(r, mbits, flowRate, float64(got.Bytes)*8/1e6/got.Whole.Seconds())
	b.add(r, mbits, flowAPI, percent(costs[processAPI]))
	if r.process != nil {
		b.add(r, mbits, flowFront, percent(costs[processFront]))
	}
	b.add(r, mbits, flowCPU, percent(costs.sum()))
	b.add(r, mbits, flowSeconds, costs.sum().Seconds()/float64(got.Bytes)*1e9)
	return nil
}
