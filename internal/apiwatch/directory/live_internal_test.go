package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/service"
)

func named(i int) service.Name { return service.Name{Namespace: "x", Name: fmt.Sprint("pod-", i)} }

// asked is an API server that takes a second to answer, and counts what it is asked.
type asked struct {
	times atomic.Int32
	err   error
}

func (a *asked) get(ctx context.Context, name service.Name) (*Pod, error) {
	a.times.Add(1)
	select {
	case <-time.After(time.Second): // the clock is the test's: it takes no time
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	return &Pod{Name: name}, nil
}

// TestAskedOnce has many clients look the same up at once, of which some leave.
func TestAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asked{}
		l := newLive("pods", make(chan struct{}, 1), a.get)
		var clients sync.WaitGroup
		for i := range 100 {
			clients.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if i%2 == 0 {
					ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
				}
				defer cancel()
				p, err := l.lookup(ctx, named(1))
				if left := i%2 == 0; left != errors.Is(err, context.DeadlineExceeded) || left != (p == nil) {
					t.Errorf("client %d: got %v, %v", i, p, err)
				}
			})
		}
		clients.Wait()
		if n := a.times.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestRemembered looks at how long answers count.
func TestRemembered(t *testing.T) {
	missing := apierrors.NewNotFound(newLive[Pod]("pods", nil, nil).resource, "pod-1")
	for _, c := range []struct {
		name string
		err  error
		wait time.Duration
		want int32
	}{
		{"found, shortly after", nil, foundFor - time.Second, 1},
		{"found, later", nil, foundFor + time.Second, 2},
		{"missing, shortly after", missing, refusedFor / 2, 1},
		{"missing, later", missing, 2 * refusedFor, 2},
		{"forbidden, shortly after", apierrors.NewForbidden(newLive[Pod]("pods", nil, nil).resource, "pod-1", nil), refusedFor / 2, 1},
		{"no answer", errors.New("connection refused"), time.Millisecond, 2},
		{"failed", apierrors.NewInternalError(errors.New("no leader")), time.Millisecond, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asked{err: c.err}
				l := newLive("pods", make(chan struct{}, 1), a.get)
				for range 2 {
					p, err := l.lookup(t.Context(), named(1))
					if (err == nil) != (c.err == nil) || (p != nil) != (c.err == nil) {
						t.Errorf("got %v, %v", p, err)
					}
					time.Sleep(c.wait) // the clock is the test's: it takes no time
				}
				if n := a.times.Load(); n != c.want {
					t.Errorf("asked %d times, want %d", n, c.want)
				}
			})
		})
	}
}

// TestTooManyAtOnce looks up more than may be asked for at once. Then there is room again.
func TestTooManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asked{}
		l := newLive("pods", make(chan struct{}, askedAtOnce), a.get)
		var refused atomic.Int32
		var clients sync.WaitGroup
		for i := range askedAtOnce + 7 {
			clients.Go(func() {
				_, err := l.lookup(t.Context(), named(i))
				status := (*apierrors.StatusError)(nil)
				if errors.As(err, &status) && status.ErrStatus.Code == http.StatusServiceUnavailable && status.ErrStatus.Details.RetryAfterSeconds > 0 {
					refused.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		if n := refused.Load(); n != 7 {
			t.Errorf("refused %d, want 7", n)
		}
		if _, err := l.lookup(t.Context(), named(-1)); err != nil {
			t.Error(err)
		}
	})
}

// TestNoAnswerEnds has an API server that never answers.
func TestNoAnswerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, 1)
		l := newLive("pods", slots, func(ctx context.Context, _ service.Name) (*Pod, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		began := time.Now()
		_, err := l.lookup(t.Context(), named(1))
		if took := time.Since(began); took != askedFor || !apierrors.IsServiceUnavailable(err) || len(slots) != 0 || len(l.asks) != 0 {
			t.Errorf("after %v: %v; %d slots and %d requests left", took, err, len(slots), len(l.asks))
		}
	})
}

// TestWatchKnowsBetter has the watch say something while a request is under way: its answer is not remembered.
func TestWatchKnowsBetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asked{}
		l := newLive("pods", make(chan struct{}, 2), a.get)
		for _, forget := range []func(){func() { l.forget(named(1)) }, l.forgetAll} {
			before := a.times.Load()
			go l.lookup(t.Context(), named(1))
			synctest.Wait()
			forget()
			time.Sleep(2 * time.Second) // the clock is the test's: it takes no time
			if _, err := l.lookup(t.Context(), named(1)); err != nil || a.times.Load()-before != 2 {
				t.Errorf("asked %d times; %v", a.times.Load()-before, err)
			}
			l.forgetAll()
		}
	})
}

// TestWatchForgets has pods go: what look-ups were told of them counts no more.
func TestWatchForgets(t *testing.T) {
	d := New(Config{Log: slog.New(slog.DiscardHandler)})
	store := d.podSink().Store()
	gone := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: named(1).Name}}
	for how, do := range map[string]func() error{
		"deleted":     func() error { return store.Delete(gone) },
		"not in list": func() error { return store.Replace(nil, "") },
	} {
		d.ask.pods.asks[named(1)] = &ask[Pod]{}
		if err := do(); err != nil || len(d.ask.pods.asks) != 0 {
			t.Errorf("%s: %d answers left, %v", how, len(d.ask.pods.asks), err)
		}
	}
}

// TestFewRemembered looks up very many names, one after the other.
func TestFewRemembered(t *testing.T) {
	l := newLive("pods", make(chan struct{}, 1), func(_ context.Context, name service.Name) (*Pod, error) { return &Pod{Name: name}, nil })
	for i := range 3 * maxRemembered {
		if p, err := l.lookup(t.Context(), named(i)); err != nil || p.Name != named(i) {
			t.Fatalf("got %v, %v", p, err)
		}
	}
	if n := len(l.asks); n > maxRemembered {
		t.Errorf("remembers %d", n)
	}
}

// TestBeforeSync looks up what there is before the first list: it comes in time, does not, or the client leaves.
func TestBeforeSync(t *testing.T) {
	for _, c := range []struct {
		name    string
		sync    time.Duration
		leave   time.Duration
		want    func(error) bool
		elapsed time.Duration
	}{
		{"in time", time.Second, time.Hour, func(err error) bool { return err == nil }, time.Second},
		{"too late", time.Minute, time.Hour, apierrors.IsServiceUnavailable, syncPatience},
		{"the client leaves", time.Minute, time.Second, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := New(Config{})
				d.pods.set(&podEntry{Pod: Pod{Name: named(1)}})
				time.AfterFunc(c.sync, func() { close(d.synced) })
				ctx, cancel := context.WithTimeout(t.Context(), c.leave)
				defer cancel()
				began := time.Now()
				_, err := d.Pod(ctx, named(1))
				if took := time.Since(began); took != c.elapsed || !c.want(err) {
					t.Errorf("after %v: got %v", took, err)
				}
			})
		})
	}
}
