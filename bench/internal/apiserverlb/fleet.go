package apiserverlb

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"
)

// What clients ask for. The first needs no etcd, the second is read from memory.
const (
	versionURL = "https://kubernetes/version"
	objectURL  = "https://kubernetes/api/v1/namespaces/default?resourceVersion=0"
	watchURL   = "https://kubernetes/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0&timeoutSeconds=3600"
)

// Times of clients.
const (
	// patience is how long a client waits for the beginning of an answer.
	patience = 5 * time.Second
	// againAfter is between the end of a watch and the next try, and againLater if that fails.
	againAfter = 20 * time.Millisecond
	againLater = 200 * time.Millisecond
	// apartBy is between the starts of two watches.
	apartBy = 10 * time.Millisecond
)

// askers is how many clients share the requests.
const askers = 20

// fleet are the clients of one balancer: watches, each with a connection of its own, and others that ask.
type fleet struct {
	*run
	watches int
	connect func() *http.Client

	stop    context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex
	journal journal
}

// launch opens the watches. close ends all clients.
func launch(ctx context.Context, r *run, watches int, connect func() *http.Client) *fleet {
	f := &fleet{run: r, watches: watches, connect: connect, journal: journal{clients: watches + askers}}
	ctx, f.stop = context.WithCancel(ctx)
	for i := range watches {
		f.running.Go(func() {
			if sleep(ctx, time.Duration(i)*apartBy) == nil {
				f.watch(ctx, i)
			}
		})
	}
	return f
}

func (f *fleet) close() {
	f.stop()
	f.running.Wait()
}

func (f *fleet) note(client, server int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.journal.turns = append(f.journal.turns, turn{time.Now(), client, server})
}

// seen is the journal as it is now.
func (f *fleet) seen() journal {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.journal
	j.turns, j.probes, j.requests = slices.Clone(j.turns), slices.Clone(j.probes), slices.Clone(j.requests)
	return j
}

// steady returns an error if a watch is not open.
func (f *fleet) steady() error {
	if where := f.seen().where(time.Now())[:f.watches]; slices.Contains(where, gone) {
		return fmt.Errorf("a watch through %s is not open", f.name)
	}
	return nil
}

// watch watches until ctx ends, whatever happens.
func (f *fleet) watch(ctx context.Context, number int) {
	client := f.connect()
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		if err := f.watchOnce(ctx, client, number); err != nil {
			_ = sleep(ctx, againLater) // ctx is looked at
			continue
		}
		_ = sleep(ctx, againAfter)
	}
}

// watchOnce returns an error if there was no answer.
func (f *fleet) watchOnce(ctx context.Context, client *http.Client, number int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(patience, cancel)
	res, err := open(ctx, client, watchURL)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	late.Stop()
	f.note(number, whose(res.Header))
	_, _ = io.Copy(io.Discard, res.Body) // how it ends makes no difference
	if ctx.Err() == nil {
		f.note(number, gone)
	}
	return nil
}

// repeat calls fn so often a second, without waiting for its end, until ctx ends; then it waits for all.
func repeat(ctx context.Context, rate float64, fn func()) {
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			running.Go(fn)
		}
	}
}

// ask asks once, and notes it in one of the lists.
func (f *fleet) ask(ctx context.Context, client *http.Client, url string, list *[]answer) (server int) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	server, err := get(limited, client, url)
	if ctx.Err() != nil {
		return server // what is under way at the end is nobody's failure
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	*list = append(*list, answer{began, time.Since(began), err})
	return server
}

// probe makes so many new connections a second until the function that it returns is called.
func (f *fleet) probe(ctx context.Context, rate int) (stop func()) {
	return f.work(ctx, func(ctx context.Context) {
		repeat(ctx, float64(rate), func() {
			client := f.connect()
			defer client.CloseIdleConnections()
			f.ask(ctx, client, versionURL, &f.journal.probes)
		})
	})
}

// request asks so often a second, over connections that stay, until the function that it returns is called.
func (f *fleet) request(ctx context.Context, rate int) (stop func()) {
	return f.work(ctx, func(ctx context.Context) {
		var running sync.WaitGroup
		defer running.Wait()
		for i := range askers {
			running.Go(func() {
				if sleep(ctx, time.Duration(i)*apartBy) == nil {
					f.requests(ctx, f.watches+i, float64(rate)/askers)
				}
			})
		}
	})
}

func (f *fleet) requests(ctx context.Context, number int, rate float64) {
	client := f.connect()
	defer client.CloseIdleConnections()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if !c.Reused {
			f.note(number, gone)
		}
	}})
	repeat(ctx, rate, func() {
		server := f.ask(traced, client, objectURL, &f.journal.requests)
		if server != gone && f.seenOf(number) != server {
			f.note(number, server)
		}
	})
	f.note(number, gone)
}

// seenOf is where a client was last.
func (f *fleet) seenOf(client int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range slices.Backward(f.journal.turns) {
		if t.client == client {
			return t.server
		}
	}
	return gone
}

func (f *fleet) work(ctx context.Context, fn func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	f.running.Go(func() { fn(ctx) })
	return cancel
}
