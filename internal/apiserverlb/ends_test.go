package apiserverlb_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiserverlb/handover"
)

// TestEndsBeforeItBegins ends a balancer that still looks for a backend: it must not open its listeners, nor say that it
// serves, since a process that is there would let go of them.
func TestEndsBeforeItBegins(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := settings(t, startServer(t))
	c.Backends.Static = []config.Static{{Address: "nowhere.invalid:6443"}}
	c.Drain.ShutdownDelay.Duration = time.Minute // for what is open
	lb, err := apiserverlb.New(apiserverlb.Config{Settings: c, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- lb.Run(ctx) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(3 * time.Second):
		t.Fatal("it still waits for a backend")
	}
	select {
	case <-lb.Serving():
		t.Error("it has said that it serves")
	default:
	}
	if err := lb.Apply(t.Context(), c); err == nil {
		t.Error("it takes settings after its end")
	}
}

// TestApplyWhileEnding takes over settings with another listener while the last connections end: it must not be opened.
func TestApplyWhileEnding(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	c.Drain.Timeout.Duration = time.Minute
	b := start(t, c, s)
	k := b.kept()
	if _, err := k.get("/"); err != nil {
		t.Fatal(err)
	}
	go b.end()
	b.await("no new connections are taken", 5*time.Second, func() bool { return len(b.Status().Listeners) == 0 })
	next := settings(t, s)
	for range 5 { // there are two reasons against it
		if err := b.Apply(t.Context(), next); err == nil || !strings.Contains(err.Error(), "no listener is opened any more") {
			t.Errorf("settings that come while it ends: %v", err)
		}
	}
	if conn, err := net.Dial("tcp", next.Listeners[0].Address); err == nil {
		conn.Close()
		t.Error("a listener was opened while it ends")
	}
	k.Close()
	b.end()
}

// TestSucceededInTheDelay has a successor come while a balancer waits out its shutdown delay: there is nothing to wait for
// any more.
func TestSucceededInTheDelay(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	c.Drain.ShutdownDelay.Duration = time.Minute
	b := start(t, c, s)
	began := time.Now()
	go b.end()
	b.await("it is ending", 5*time.Second, b.Ending)
	b.Succeed()
	b.end()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestHurry ends a balancer at once that waits for a connection to end.
func TestHurry(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	c.Drain.ShutdownDelay.Duration, c.Drain.Timeout.Duration = time.Minute, time.Hour
	b := start(t, c, s)
	k := b.kept()
	if _, err := k.get("/"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write([]byte("GET / HTTP/1.1\r\n")); err != nil { // the rest is to come: not a connection to close
		t.Fatal(err)
	}
	go b.end()
	b.await("it is ending", 5*time.Second, b.Ending)
	began := time.Now()
	b.Hurry()
	b.end()
	if took := time.Since(began); took > 4*time.Second { // idle ones are closed after five
		t.Errorf("took %s", took)
	}
}

// TestSocketsThatAreOpen takes a listener over that is open already, and closes one that no listener has: the kernel would
// take its clients in, and nobody would serve them.
func TestSocketsThatAreOpen(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	spare := settings(t, s).Listeners[0].Address
	sockets := &apiserverlb.Sockets{}
	for _, at := range []string{c.Listeners[0].Address, spare} {
		l, err := handover.Open(t.Context(), netip.MustParseAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		sockets.Given = append(sockets.Given, handover.Listener{Name: "x", Net: l})
	}
	b := startWith(t, apiserverlb.Config{Settings: c, Sockets: sockets}, s)
	if addr, err := b.once(); addr != s.addr || err != nil {
		t.Errorf("%q, %v", addr, err)
	}
	if conn, err := net.Dial("tcp", spare); err == nil {
		conn.Close()
		t.Error("a socket that nobody serves is still open")
	}
}

// TestNothingIsLeft runs balancers of both modes, with all that they may have, to their ends: no goroutine and no descriptor
// of theirs is left.
func TestNothingIsLeft(t *testing.T) {
	s := startServer(t)
	slicesOf(t, s, s)
	requests, client := requestSettings(t, s)
	requests.Listeners = append(requests.Listeners, settings(t, s).Listeners...)
	requests.Backends.Kubernetes.Kubeconfig = kubeconfig(t, requests.Health.CAFile)
	requests.Backends.CacheFile = t.TempDir() + "/cache.json"
	requests.Complete()
	round := func() {
		b := start(t, requests, s)
		b.await("the slices count", 10*time.Second, func() bool { return b.state(s).Source == "kubernetes" })
		if err := b.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		resp, err := client.Get("https://" + b.addr + "/who")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		client.CloseIdleConnections()
		next := requests
		next.Health.Rise, next.Zone = 3, "x" // another checker
		if err := b.Apply(t.Context(), next); err != nil {
			t.Error(err)
		}
		b.end()
	}
	round() // what is made once and for all
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 3 {
		round()
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines || openFiles(t) > files; {
		if time.Now().After(deadline) {
			var stacks strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("%d goroutines were %d, %d descriptors were %d\n%s", runtime.NumGoroutine(), goroutines, openFiles(t), files, stacks.String())
		}
		time.Sleep(10 * time.Millisecond) // nothing tells when
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
