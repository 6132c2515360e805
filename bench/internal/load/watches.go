package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"varco.dev/bench/internal/fakeapi"
)

// late is how long after the end of a series its last events may come.
const late = 250 * time.Millisecond

// Watches are watches that are open at the same time.
type Watches struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	opened chan error // one for each watch
	mu     sync.Mutex
	seen   []seen // bounded by the length of the series; each begins it anew
	err    error  // of a watch that ended by itself
}

// seen is an event that has come.
type seen struct{ at, came time.Time }

// OpenWatches opens watches of fakeapi at url and returns when all of them are answered. Close ends them.
func OpenWatches(ctx context.Context, client *http.Client, url string, count int) (*Watches, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watches{cancel: cancel, opened: make(chan error, count)}
	for range count {
		w.done.Go(func() { w.run(ctx, client, url) })
	}
	for range count {
		if err := <-w.opened; err != nil {
			w.Close()
			return nil, fmt.Errorf("open watch: %w", err)
		}
	}
	return w, nil
}

// Close ends all watches.
func (w *Watches) Close() {
	w.cancel()
	w.done.Wait()
}

func (w *Watches) run(ctx context.Context, client *http.Client, url string) {
	res, err := get(ctx, client, url)
	w.opened <- err
	if err != nil {
		return
	}
	defer res.Body.Close()
	err = w.follow(bufio.NewReaderSize(res.Body, 2*fakeapi.EventBytes))
	if ctx.Err() == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = errors.Join(w.err, fmt.Errorf("a watch has ended: %w", err))
	}
}

func get(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("%w: %s", errOdd, res.Status)
	}
	return res, nil
}

// follow notes events until the watch ends; the error is never nil.
func (w *Watches) follow(in *bufio.Reader) error {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		came := time.Now()
		at, err := fakeapi.EventTime(line)
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.seen = append(w.seen, seen{at, came})
		w.mu.Unlock()
	}
}

// Events is what came of a series.
type Events struct {
	// Took is how long each event took from when it happened until the watch told of it.
	Took []time.Duration
	// Seen is how many events came while During ran, those that happened before or after its time too.
	Seen int
}

// During returns the events that happened in this time from now on. It waits for late ones.
func (w *Watches) During(ctx context.Context, duration time.Duration) (out Events, err error) {
	w.mu.Lock()
	w.seen = nil
	w.mu.Unlock()
	began := time.Now()
	select {
	case <-time.After(duration + late):
	case <-ctx.Done():
		return out, context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return Events{Took: took(w.seen, began, began.Add(duration)), Seen: len(w.seen)}, w.err
}

// took returns the times of the events that happened since began and before ended.
func took(events []seen, began, ended time.Time) (out []time.Duration) {
	for _, e := range events {
		if !e.at.Before(began) && e.at.Before(ended) {
			out = append(out, e.came.Sub(e.at))
		}
	}
	return out
}
