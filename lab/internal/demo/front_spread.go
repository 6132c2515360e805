package demo

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Requests of a Service whose spread is shown, and how many are sent at a time.
const (
	frontRequests = 900
	frontWorkers  = 8
)

// spread sends requests to a Service, then to one with a dead endpoint, and prints who answered; it returns how many
// failed.
func (f *front) spread(ctx context.Context) (failed int, err error) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tREQUESTS\tFAILED\tSENT AGAIN\tREQUESTS PER SECOND\tPODS THAT ANSWERED")
	for _, s := range []struct{ title, id string }{{"echo", "echo:http"}, {"limping, a dead endpoint", "limping"}} {
		before, err := f.retries(ctx)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		byPod, bad := f.tally(ctx, f.url()+"/api/v1/namespaces/default/services/"+s.id+"/proxy/healthz")
		took := time.Since(begin)
		after, err := f.retries(ctx)
		if err != nil {
			return 0, err
		}
		failed += bad
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.0f\t%s\n", s.title, frontRequests, bad, after-before, frontRequests/took.Seconds(), counts(byPod))
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	f.console.line("%s", table.String())
	return failed, ctx.Err()
}

func counts(byPod map[string]int) string {
	var list []string
	for _, pod := range slices.Sorted(maps.Keys(byPod)) {
		list = append(list, fmt.Sprintf("%s %d", pod, byPod[pod]))
	}
	return strings.Join(list, ", ")
}

// tally asks many times, some at a time, and counts answers by pod.
func (f *front) tally(ctx context.Context, url string) (byPod map[string]int, failed int) {
	byPod = map[string]int{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for i := range frontWorkers {
		asking.Go(func() {
			for n := i; n < frontRequests && ctx.Err() == nil; n += frontWorkers {
				code, pod, err := f.get(ctx, url)
				mu.Lock()
				if err != nil || code != http.StatusOK {
					failed++
				} else {
					byPod[pod]++
				}
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	return byPod, failed
}

// retriesMetric counts requests that were sent again.
const retriesMetric = "varco_apiserver_proxy_endpoint_retries_total"

// retries reads from the front's metrics how many requests were sent again since it began.
func (f *front) retries(ctx context.Context) (total int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+frontMetrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := f.local.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read the metrics of the front: %w", err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		fields := strings.Fields(in.Text())
		if len(fields) != 2 || !strings.HasPrefix(fields[0], retriesMetric) {
			continue
		}
		n, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return 0, fmt.Errorf("read the metrics of the front: %w", err)
		}
		total += int(n)
	}
	return total, in.Err()
}
