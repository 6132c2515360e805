package apiload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// attempt is a request and what came of it.
type attempt struct {
	begin time.Time
	took  time.Duration
	err   string // empty: it was answered
}

// tally is all attempts of a kind.
type tally struct {
	mu       sync.Mutex
	attempts []attempt
	broken   []time.Time // when connections broke under requests
}

func (t *tally) broke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = append(t.broken, time.Now())
}

func (t *tally) add(a attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts = append(t.attempts, a)
}

// Requests is what came of requests of a kind.
type Requests struct {
	Sent, Failed int
	// Broken is how many requests had their connection break under them; client-go sends most of them again.
	Broken int
	// Span is the time between the beginnings of the first and the last of those that failed.
	Span time.Duration
	// Slowest is how long the slowest took that was answered.
	Slowest time.Duration
	// Errors counts the failures by their text.
	Errors map[string]int
}

// Share of the requests that failed, 0 to 1.
func (r Requests) Share() float64 { return float64(r.Failed) / float64(max(1, r.Sent)) }

func (t *tally) since(begin time.Time) Requests {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Requests{Errors: map[string]int{}}
	var first, last time.Time
	for _, a := range t.attempts {
		if a.begin.Add(a.took).Before(begin) {
			continue
		}
		r.Sent++
		if a.err == "" {
			r.Slowest = max(r.Slowest, a.took)
			continue
		}
		r.Failed++
		r.Errors[a.err]++
		if first.IsZero() || a.begin.Before(first) {
			first = a.begin
		}
		if a.begin.After(last) {
			last = a.begin
		}
	}
	for _, at := range t.broken {
		if at.After(begin) {
			r.Broken++
		}
	}
	r.Span = last.Sub(first)
	return r
}

// pace calls ask at the rate, each time on a goroutine of its own, until ctx ends.
func (l *Load) pace(ctx context.Context, rate int, t *tally, ask func(context.Context, int) error) {
	if rate == 0 {
		return
	}
	places := make(chan struct{}, outstanding)
	l.running.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case places <- struct{}{}:
			default:
				t.add(attempt{begin: time.Now(), err: "too many requests hang"})
				continue
			}
			l.running.Go(func() {
				defer func() { <-places }()
				begin := time.Now()
				err := ask(ctx, n)
				if ctx.Err() == nil {
					t.add(attempt{begin, time.Since(begin), describe(err)})
				}
			})
		}
	})
}

func describe(err error) string {
	if err == nil {
		return ""
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner // the innermost: those outside name ports
	}
	return err.Error()
}

// runKept sends requests for an object over a few connections, as client-go's users do: it sends a GET again if the connection
// breaks under it, which is counted.
func (l *Load) runKept(ctx context.Context) error {
	var clients []*corev1.CoreV1Client
	for i := range l.cfg.Kept {
		conf := l.clientConfig(fmt.Sprintf("kept-%d", i))
		conf.Timeout = keptTimeout
		conf.Wrap(func(next http.RoundTripper) http.RoundTripper { return &broken{next, l.kept} })
		client, err := corev1.NewForConfig(conf)
		if err != nil {
			return err
		}
		clients = append(clients, client)
	}
	l.pace(ctx, l.cfg.Requests, l.kept, func(ctx context.Context, n int) error {
		_, err := clients[n%len(clients)].ConfigMaps(l.cfg.Namespace).Get(ctx, object(0), metav1.GetOptions{})
		return err
	})
	return nil
}

// broken counts requests that a broken connection ended.
type broken struct {
	next  http.RoundTripper
	tally *tally
}

// RoundTrip implements http.RoundTripper.
func (b *broken) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil && r.Context().Err() == nil {
		b.tally.broke()
	}
	return resp, err
}

// runFresh makes new connections, without a name: what is asked for is open to all.
func (l *Load) runFresh(ctx context.Context) error {
	conf, err := rest.TLSConfigFor(rest.AnonymousClientConfig(l.cfg.Way))
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: freshTimeout, Transport: &http.Transport{
		DialContext: l.cfg.Dial, TLSClientConfig: conf, DisableKeepAlives: true, MaxResponseHeaderBytes: 1 << 16,
	}}
	l.pace(ctx, l.cfg.Fresh, l.fresh, func(ctx context.Context, _ int) error {
		return get(ctx, client, l.cfg.Way.Host+"/version")
	})
	return nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
