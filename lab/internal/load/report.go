package load

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxErrors is how many different failures a report tells apart; the rest count together.
	maxErrors   = 16
	otherErrors = "other errors"
	// maxClients is how many addresses of clients a report tells apart; the rest count together.
	maxClients   = 64
	otherClients = "others"
	// maxLatencies is how many latencies a report keeps: 8 MB.
	maxLatencies = 1 << 20
)

// Report is what came of the requests. It may be filled by several goroutines; read its fields when they are done.
type Report struct {
	Requests int            // all of them
	Failed   int            // those without a proper answer
	Errors   map[string]int // reason -> how many failed for it
	ByPod    map[string]int // pod -> how many it answered
	ByClient map[string]int // address that requests came from, as pods saw it -> how many

	mu        sync.Mutex // guards all fields while requests are under way
	latencies []time.Duration
}

// NewReport returns an empty report.
func NewReport() *Report {
	return &Report{Errors: make(map[string]int), ByPod: make(map[string]int), ByClient: make(map[string]int)}
}

func (r *Report) add(a answer, took time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Requests++
	if err != nil {
		r.Failed++
		r.addError(err.Error(), 1)
		return
	}
	r.ByPod[a.pod]++
	if from, err := netip.ParseAddrPort(a.client); err == nil {
		r.addClient(from.Addr().Unmap().String(), 1)
	}
	if len(r.latencies) < maxLatencies {
		r.latencies = append(r.latencies, took)
	}
}

func (r *Report) addError(text string, n int) {
	if _, known := r.Errors[text]; !known && len(r.Errors) >= maxErrors {
		text = otherErrors
	}
	r.Errors[text] += n
}

// Add takes the numbers of another report in.
func (r *Report) Add(other *Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Requests += other.Requests
	r.Failed += other.Failed
	for text, n := range other.Errors {
		r.addError(text, n)
	}
	for pod, n := range other.ByPod {
		r.ByPod[pod] += n
	}
	for addr, n := range other.ByClient {
		r.addClient(addr, n)
	}
	free := maxLatencies - len(r.latencies)
	r.latencies = append(r.latencies, other.latencies[:min(free, len(other.latencies))]...)
}

func (r *Report) addClient(addr string, n int) {
	if _, known := r.ByClient[addr]; !known && len(r.ByClient) >= maxClients {
		addr = otherClients
	}
	r.ByClient[addr] += n
}

// Latency returns the time within which the given part of the answered requests, such as 0.99, was answered; 0 if none
// was.
func (r *Report) Latency(part float64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.latencies))
	return sorted[int(part*float64(len(sorted)-1))]
}

// Spread tells how the answers fell on the pods, such as "3 pods: 33 41 26".
func (r *Report) Spread() string {
	if len(r.ByPod) == 0 {
		return "-"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d pods:", len(r.ByPod))
	if len(r.ByPod) == 1 {
		b.Reset()
		b.WriteString("1 pod:")
	}
	for _, pod := range slices.Sorted(maps.Keys(r.ByPod)) {
		fmt.Fprintf(&b, " %d", r.ByPod[pod])
	}
	return b.String()
}

// PodLines tells how many answers came from each pod, a line for each.
func (r *Report) PodLines() []string {
	var lines []string
	for _, pod := range slices.Sorted(maps.Keys(r.ByPod)) {
		lines = append(lines, fmt.Sprintf("%6d from %s", r.ByPod[pod], pod))
	}
	return lines
}

// Failures lists the reasons of failures, the most frequent first, such as "3 × dial tcp: connect: connection refused".
func (r *Report) Failures() []string {
	texts := slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int {
		if n := r.Errors[b] - r.Errors[a]; n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	for i, text := range texts {
		texts[i] = fmt.Sprintf("%d × %s", r.Errors[text], text)
	}
	return texts
}
