//go:build linux

package cli

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"varco.dev/internal/kubeproxy/config"
)

// serving runs until the context ends and returns nil then.
type serving func(context.Context, config.Config) error

// reload serves, and serves anew with each new configuration, until the context ends or serving does. A new one waits for
// the old one to end. The kernel's rules stay meanwhile, so traffic goes on.
func (f *kubeProxyFlags) reload(ctx context.Context, cfg config.Config, log *slog.Logger, serve serving) error {
	ctx, stop := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan config.Config, 1) // holds the newest one
	group.Go(func() error {
		return f.options.Watch(ctx, cfg, func(c config.Config, err error) {
			if err != nil {
				log.Error("the configuration has a mistake", "error", err)
				return
			}
			report(log, c.Notes)
			select {
			case <-next: // nobody has taken the last one yet
			default:
			}
			next <- c // this is the only goroutine that fills it
		})
	})
	group.Go(func() error {
		defer stop()
		return serveEach(ctx, cfg, next, log, serve)
	})
	return group.Wait()
}

// reloadTrial is how long a new configuration must have been served to count as one that can be: what fails later is not its
// fault.
const reloadTrial = time.Minute

// serveEach goes back to the configuration before where a new one cannot be served.
func serveEach(ctx context.Context, cfg config.Config, next <-chan config.Config, log *slog.Logger, serve serving) error {
	var before *config.Config // the one that was replaced last; nil: there is none, or it was gone back to
	for {
		inner, stop := context.WithCancel(ctx)
		ended, began := make(chan error, 1), time.Now()
		go func(cfg config.Config) { ended <- serve(inner, cfg) }(cfg)
		select {
		case err := <-ended:
			stop()
			if err == nil || before == nil || time.Since(began) > reloadTrial {
				return err
			}
			log.Error("cannot serve with the new configuration, goes back to the one before", "error", err)
			cfg, before = *before, nil
		case newer := <-next:
			log.Info("takes over a new configuration")
			stop()
			if err := <-ended; err != nil {
				return err
			}
			old := cfg
			before, cfg = &old, newer
			select {
			case cfg = <-next: // a still newer one has come while the old one ended
			default:
			}
		}
	}
}
