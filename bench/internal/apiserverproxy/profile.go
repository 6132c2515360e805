package apiserverproxy

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// profiling takes a profile of a front beside what is measured. The function that it returns waits for its end.
func (b *Bench) profiling(ctx context.Context, r *run, what, kind string) (wait func()) {
	if b.profile == "" || r.process == nil {
		return func() {}
	}
	to := filepath.Join(b.profile, fmt.Sprintf("%s-%d.pprof", what, r.round))
	var done sync.WaitGroup
	done.Go(func() {
		if err := r.save(ctx, frontProfiles+kind, to); err != nil {
			b.log.Warn("take a profile (does the front serve any?)", "error", err)
		}
	})
	return done.Wait
}

// seconds is how long a profile takes: whole seconds, one at least.
func seconds(d time.Duration) int { return int(max(time.Second, d).Seconds()) }

// save stores what is at a URL.
func (r *run) save(ctx context.Context, url, to string) error {
	c := r.place.client(nil)
	defer c.CloseIdleConnections()
	res, err := get(ctx, c, url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, res.Body); err != nil {
		return fmt.Errorf("save profile: %w", err)
	}
	return f.Close()
}
