package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// plane records what it is told and fails as often as it is told to.
type plane struct {
	log logged // of the loop

	mu    sync.Mutex
	calls []string      // "replace N ports" or "update N ports", with " failed"
	fail  []error       // of the next calls
	hold  chan struct{} // if not nil, calls wait for it

	applied []applied // what Applied was called with
}

// logged is what was logged. It may be read at any time.
type logged struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

type applied struct {
	changes service.Changes
	full    bool
}

func (p *plane) Update(_ context.Context, c service.Changes) error  { return p.call("update", c) }
func (p *plane) Replace(_ context.Context, c service.Changes) error { return p.call("replace", c) }

func (p *plane) call(name string, c service.Changes) (err error) {
	if p.hold != nil {
		<-p.hold
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	call := fmt.Sprintf("%s %d ports", name, len(c.Ports))
	if len(p.fail) > 0 {
		err, p.fail = p.fail[0], p.fail[1:]
	}
	if err != nil {
		call += " failed"
	}
	p.calls = append(p.calls, call)
	return err
}

func (p *plane) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := strings.Join(p.calls, ", ")
	p.calls = nil
	return calls
}

// run starts a loop in a bubble with a fake clock and returns what the tests need.
func run(t *testing.T, p *plane, test func(l *reconcile.Loop, start chan struct{}, ended chan error)) {
	synctest.Test(t, func(t *testing.T) {
		start := make(chan struct{})
		l := reconcile.New(reconcile.Config{
			Table: service.NewTable("node-1"), Plane: p, Start: start, Log: slog.New(slog.NewTextHandler(&p.log, nil)),
			Applied: func(c service.Changes, full bool) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.applied = append(p.applied, applied{c, full})
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		test(l, start, ended)
		cancel()
		synctest.Wait()
	})
}

// pass lets time pass, on the bubble's clock.
func pass(d time.Duration) {
	time.Sleep(d) // nothing waits: the clock is the bubble's
}

func add(l *reconcile.Loop, names ...string) {
	for _, n := range names {
		l.Update(func(t *service.Table) {
			t.SetService(&service.Service{
				Name:       service.Name{Namespace: "x", Name: n},
				ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0." + n)},
				Ports:      []service.ServicePort{{Protocol: service.TCP, Port: 80}},
			})
		})
	}
}

func expect(t *testing.T, p *plane, want string) {
	t.Helper()
	synctest.Wait()
	if got := p.take(); got != want {
		t.Errorf("got calls %q, want %q", got, want)
	}
}

func TestLoopAppliesWholeStateOnceThenChanges(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		add(l, "1", "2")
		pass(time.Hour)
		expect(t, p, "")
		if h := l.Health(); h.Stuck(time.Now()) {
			t.Errorf("stuck while the API server is waited for: %+v", h)
		}
		close(start)
		expect(t, p, "replace 2 ports")
		pass(reconcile.DefaultMaxWait)
		p.take()

		add(l, "3", "4", "5")
		pass(reconcile.DefaultMaxWait)
		expect(t, p, "update 3 ports")
		l.Update(func(*service.Table) {})
		pass(reconcile.DefaultMaxWait)
		expect(t, p, "")
		pass(reconcile.DefaultResync)
		expect(t, p, "replace 5 ports")
		pass(time.Second)
		add(l, "6")
		expect(t, p, "update 1 ports") // at once: no time has passed
		add(l, "7")
		expect(t, p, "")
		pass(reconcile.DefaultIdle)
		expect(t, p, "update 1 ports")
	})
}

func TestLoopDoesNotWaitForeverForQuiet(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		close(start)
		expect(t, p, "replace 0 ports")
		for i := range 3 * reconcile.DefaultMaxWait / reconcile.DefaultIdle {
			add(l, fmt.Sprint(1+int(i)))
			pass(reconcile.DefaultIdle / 2)
		}
		synctest.Wait()
		if got := p.take(); !strings.Contains(got, "update") {
			t.Errorf("under steady changes nothing was applied: %q", got)
		}
	})
}

func TestLoopStartsOverAfterFailure(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		close(start)
		expect(t, p, "replace 0 ports")
		p.fail = []error{errors.New("no"), errors.New("still no"), errors.New("no again")}
		add(l, "1")
		pass(reconcile.DefaultMaxWait)
		expect(t, p, "update 1 ports failed, replace 1 ports failed") // the whole state may do what the changes could not
		if h := l.Health(); h.Err == nil || h.PendingFrom.IsZero() {
			t.Errorf("got health %+v after a failure", h)
		}
		add(l, "2")
		pass(reconcile.DefaultMinRetry)
		expect(t, p, "replace 2 ports failed")
		pass(reconcile.DefaultMinRetry)
		expect(t, p, "")
		pass(reconcile.DefaultMinRetry)
		expect(t, p, "replace 2 ports")
		pass(reconcile.DefaultMaxWait)
		if h := l.Health(); h.Err != nil || !h.PendingFrom.IsZero() || !h.Synced || h.Stuck(time.Now().Add(time.Hour)) {
			t.Errorf("got health %+v after success", h)
		}
	})
}

func TestLoopStuck(t *testing.T) {
	p := &plane{}
	for range 20 {
		p.fail = append(p.fail, errors.New("no"))
	}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		close(start)
		pass(reconcile.DefaultStuckAfter / 2)
		if l.Health().Stuck(time.Now()) {
			t.Error("stuck too early")
		}
		pass(reconcile.DefaultStuckAfter)
		if !l.Health().Stuck(time.Now()) {
			t.Error("not stuck, though nothing was applied for too long")
		}
	})
}

func TestLoopEndsWhereUnsupported(t *testing.T) {
	p := &plane{fail: []error{fmt.Errorf("old kernel: %w", errors.ErrUnsupported)}}
	run(t, p, func(_ *reconcile.Loop, start chan struct{}, ended chan error) {
		close(start)
		if err := <-ended; !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Run returned %v", err)
		}
	})
}
