package kubeproxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// profileURL is where a contender that was started with --profiling serves processor profiles.
const profileURL = "http://127.0.0.1:10249/debug/pprof/profile?seconds=%d"

// profileSeconds is how long a profile takes; the changes of a round take longer.
const profileSeconds = 5

// profile takes a profile of the contender beside what is measured. The function that it returns waits for its end.
func (b *Bench) profile(ctx context.Context, r *run, what string) (wait func()) {
	if b.Profile == "" {
		return func() {}
	}
	path := filepath.Join(b.Profile, fmt.Sprintf("%s-%s-%d-%d.pprof", r.Name, what, r.size, r.round))
	var done sync.WaitGroup
	done.Go(func() {
		if err := saveProfile(ctx, r, path); err != nil {
			b.Log.Warn("take a profile (does the proxy have --profiling?)", "contender", r.Name, "error", err)
		}
	})
	return done.Wait
}

func saveProfile(ctx context.Context, r *run, path string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: r.world.Node.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf(profileURL, profileSeconds), nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("get profile: %s", res.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, res.Body); err != nil {
		return fmt.Errorf("save profile: %w", err)
	}
	return f.Close()
}
