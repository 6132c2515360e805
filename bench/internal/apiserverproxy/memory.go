package apiserverproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is what a process says of its own.
type memory struct {
	heap   int64 // what the last collection of garbage has left
	stacks int64
}

func (m memory) all() int64 { return m.heap + m.stacks }

// memory asks the proxy; the answer is the zero value for one that does not tell.
func (r *run) memory(ctx context.Context) (m memory, err error) {
	if r.metrics == "" {
		return m, nil
	}
	// One that asked for gzip would make the server take a MiB for each answer.
	c := &http.Client{Transport: &http.Transport{DialContext: r.place.dial, TLSClientConfig: r.place.administrator, DisableCompression: true}}
	defer c.CloseIdleConnections()
	url := r.metrics
	if strings.HasPrefix(url, "/") {
		url = r.url(url)
	}
	res, err := get(ctx, c, url)
	if err != nil {
		return m, err
	}
	defer res.Body.Close()
	return memoryIn(res.Body)
}

// Names of metrics that programs in Go have.
const (
	heapMetric   = "go_gc_heap_live_bytes"
	stacksMetric = "go_memstats_stack_inuse_bytes"
)

// memoryIn reads metrics.
func memoryIn(in io.Reader) (m memory, err error) {
	want := map[string]*int64{heapMetric: &m.heap, stacksMetric: &m.stacks}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		to, ok := want[name]
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return m, fmt.Errorf("read metric %s: %w", name, err)
		}
		*to = int64(f)
		delete(want, name)
	}
	if len(want) > 0 {
		return m, fmt.Errorf("read metrics: no %v", slices.Sorted(maps.Keys(want)))
	}
	return m, nil
}

// heapEvery is how often the heap is looked at.
const heapEvery = 100 * time.Millisecond

// heapDuring returns the largest live heap that was seen while fn ran.
func (b *Bench) heapDuring(ctx context.Context, r *run, fn func() error) (most int64, err error) {
	if r.metrics == "" {
		return 0, fn()
	}
	var (
		done   sync.WaitGroup
		failed error
		stop   = make(chan struct{})
	)
	done.Go(func() {
		for failed == nil {
			select {
			case <-stop:
				return
			case <-time.After(heapEvery):
			}
			var now memory
			now, failed = r.memory(ctx)
			most = max(most, now.heap)
		}
	})
	err = fn()
	close(stop)
	done.Wait()
	return most, errors.Join(err, failed)
}
