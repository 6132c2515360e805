//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiserverlb/handover"
	"varco.dev/internal/filewatch"
	"varco.dev/internal/observe"
)

// apiserverLBRun is one run of the command.
type apiserverLBRun struct {
	flags    *apiserverLBFlags
	settings config.Config // those at the start
	lb       *apiserverlb.LB
	access   *observe.AccessMetrics
	hangups  chan os.Signal // SIGHUP
	alone    chan struct{}  // closed when no process before is there any more
	unpaged  chan struct{}  // closed when the address of the pages is free
	log      *slog.Logger
}

func (f *apiserverLBFlags) run(ctx context.Context, out, errOut io.Writer) error {
	if f.logFormat != "text" && f.logFormat != "json" {
		return fmt.Errorf("--logging-format: %q is none of text, json", f.logFormat)
	}
	settings, err := f.settings()
	if err != nil {
		return err
	}
	if path := settings.HandoverSocket; path != "" {
		if err := handover.Check(path); err != nil {
			return fmt.Errorf("handoverSocket: %w", err)
		}
	}
	if f.check {
		_, err := fmt.Fprintln(out, "the configuration is right")
		return err
	}
	log, _ := observe.NewLog(errOut, f.logFormat, f.verbosity)
	r := &apiserverLBRun{
		flags: f, settings: settings, access: observe.NewAccessMetrics(), hangups: make(chan os.Signal, 1),
		alone: make(chan struct{}), unpaged: make(chan struct{}), log: log.With("component", "apiserver-lb"),
	}
	for _, w := range settings.Warnings() {
		r.log.Warn(w)
	}
	releaseImage(r.log)
	return r.run(ctx)
}

// run takes over from a process that is there, and serves until the context ends or another one takes over.
func (r *apiserverLBRun) run(ctx context.Context) error {
	signal.Notify(r.hangups, syscall.SIGHUP) // at any time else it would end the process
	defer signal.Stop(r.hangups)
	sockets, taken, err := r.sockets(ctx)
	if err != nil {
		return err
	}
	c := apiserverlb.Config{Settings: r.settings, Sockets: sockets, Version: version(), Access: r.access, Log: r.log}
	c.Settings.Workers = spareProcessor(c.Settings.Workers)
	if r.settings.HTTPS.APIServerProxy {
		c.Mount = r.mount
	}
	if r.lb, err = apiserverlb.New(c); err != nil {
		return err
	}
	if taken == nil {
		close(r.alone)
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	all, working := errgroup.WithContext(working)
	all.Go(func() error {
		defer stop()
		return r.balance(ctx, working)
	})
	paged, unpage := context.WithCancel(working)
	defer unpage()
	all.Go(func() error { return r.serve(working, taken, unpage) })
	all.Go(func() error { return r.follow(working) })
	all.Go(func() error {
		defer close(r.unpaged)
		select {
		case <-paged.Done():
			return nil
		case <-r.alone: // the one before has let go of the address
			return r.pages().Run(paged)
		}
	})
	all.Go(func() error { return r.watchdog(working) })
	return all.Wait()
}

// spareProcessor lets Go run one thread more than there are event loops, so that checks, pages and requests do not wait for
// these, which rest in the kernel without Go's knowing. It returns how many loops there are to be.
func spareProcessor(loops int) int {
	processors := runtime.GOMAXPROCS(0)
	if loops == 0 {
		loops = processors
	}
	runtime.GOMAXPROCS(max(processors, loops+1))
	return loops
}

// balance runs the balancer until the context ends, or what else there is fails: then it ends in order, and at once if told so
// once more.
func (r *apiserverLBRun) balance(ctx, working context.Context) error {
	running, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(working, end)()
	again := make(chan os.Signal, 1)
	defer signal.Stop(again)
	defer context.AfterFunc(ctx, func() {
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		r.tell(handover.Stopping)
		select {
		case <-working.Done():
		case <-again:
			r.log.Warn("told to end once more: ends at once")
			r.lb.Hurry()
		}
	})()
	return r.lb.Run(running)
}

// sockets returns the listeners that are open already.
func (r *apiserverLBRun) sockets(ctx context.Context) (*apiserverlb.Sockets, *handover.Taken, error) {
	if path := r.settings.HandoverSocket; path != "" {
		taken, err := handover.Take(ctx, path)
		switch {
		case err == nil:
			r.log.Info("takes over from another process", "pid", taken.PID, "listeners", len(taken.Listeners))
			return &apiserverlb.Sockets{Given: taken.Listeners}, taken, nil
		case !errors.Is(err, handover.ErrNobody):
			return nil, nil, fmt.Errorf("take over by %s: %w", path, err)
		}
	}
	given, err := handover.Activated()
	if err != nil {
		return nil, nil, fmt.Errorf("take the sockets of systemd: %w", err)
	}
	return &apiserverlb.Sockets{Given: given, ByName: true}, nil, nil
}

// serve lets the process before go once everything is open here, and then waits for one that comes after, which gets the
// address of the pages as well.
func (r *apiserverLBRun) serve(ctx context.Context, taken *handover.Taken, unpage func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.lb.Serving():
	}
	if taken != nil {
		if err := taken.Done(ctx); err != nil {
			return fmt.Errorf("let the process before go: %w", err)
		}
		close(r.alone)
	}
	if r.settings.HandoverSocket == "" {
		r.tell(handover.Ready)
		return nil
	}
	err := handover.Serve(ctx, handover.Config{
		Path: r.settings.HandoverSocket, Listeners: r.lb.Listeners, Log: r.log,
		Standing: func() { r.tell(handover.Ready) },
		Taken: func(pid int) {
			r.log.Info("another process has taken over", "pid", pid)
			if pid != 0 { // else it is not known here, nor to systemd
				r.tell(handover.MainPID(pid))
			}
			unpage()
			r.lb.Succeed()
			<-r.unpaged
		},
	})
	if err != nil { // no reason to end what is served
		r.log.Error("no process can take over from this one", "error", err)
		r.tell(handover.Ready)
	}
	return nil
}

// tell tells systemd, if that has started the process.
func (r *apiserverLBRun) tell(states ...string) {
	if err := handover.Notify(states...); err != nil {
		r.log.Warn("systemd was not told", "what", strings.Join(states, " "), "error", err)
	}
}

// watchdog tells systemd's watchdog, if there is one, for as long as the process does its work.
func (r *apiserverLBRun) watchdog(ctx context.Context) error {
	interval, err := handover.WatchdogInterval()
	if err != nil {
		r.log.Warn("systemd's watchdog is not told", "error", err)
	}
	if interval == 0 {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if r.lb.Alive() == nil {
				r.tell(handover.Watchdog)
			}
		}
	}
}

// follow reads the configuration again on SIGHUP, and when its file changes, once all is open that it says at the start.
func (r *apiserverLBRun) follow(ctx context.Context) error {
	look := func() string {
		content, err := filewatch.Read(r.flags.file, filewatch.Most)
		return fmt.Sprint(string(content), err)
	}
	first := look()
	select {
	case <-ctx.Done():
		return nil
	case <-r.lb.Serving():
	}
	changes := make(chan struct{}, 1)
	group, ctx := errgroup.WithContext(ctx)
	if r.flags.file != "" {
		group.Go(func() error {
			return filewatch.Follow(ctx, first, look, func(string) {
				select {
				case changes <- struct{}{}:
				default: // it is about to be read
				}
			})
		})
	}
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-r.hangups:
			case <-changes:
			}
			r.reload(ctx)
		}
	})
	return group.Wait()
}

// reload takes over the configuration as it is now. If it is not right, nothing is changed.
func (r *apiserverLBRun) reload(ctx context.Context) {
	if r.lb.Ending() {
		return
	}
	r.tell(handover.Reloading())
	defer r.tell(handover.Ready)
	c, err := r.flags.settings()
	if err == nil {
		for _, w := range c.Warnings() {
			r.log.Warn(w)
		}
		err = r.lb.Apply(ctx, c)
	}
	if err != nil {
		r.log.Error("the configuration was not taken over: the one before stays in use", "error", err)
		return
	}
	r.log.Info("took over the configuration")
	if fixed := config.Restart(r.settings, c); len(fixed) > 0 {
		r.log.Warn("some of the configuration counts from the next start on", "fields", strings.Join(fixed, ", "))
	}
}

// pages is the server of /metrics, /readyz, /livez and /status.
func (r *apiserverLBRun) pages() observe.Server {
	registry := prometheus.NewRegistry()
	registry.MustRegister(observe.BuildInfo(version()), r.lb.Collector(), r.access)
	pages := observe.Pages{
		Component: "apiserver-lb", Version: version(), Started: time.Now(), Profiling: r.flags.profiling,
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	mux := http.NewServeMux()
	mux.Handle("/", pages.Handler())
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, q *http.Request) {
		observe.Check(func() error { return r.lb.Ready(q.Context()) }).ServeHTTP(w, q)
	})
	mux.Handle("/livez", observe.Check(r.lb.Alive))
	mux.Handle("/status", observe.JSON(func() any { return r.lb.Status() }))
	return observe.Server{Address: r.settings.MetricsAddress, Handler: mux, Log: r.log}
}
