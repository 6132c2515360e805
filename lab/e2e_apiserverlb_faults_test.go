package main_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiserverlb"
	"varco.dev/lab/internal/controlplane"
)

// shortFault is how long a fault lasts: longer than it may take to be seen and to be got over.
const shortFault = 8 * time.Second

// stopGrace is how long an API server may take to end in order: beyond its delay, it waits up to a minute for requests that hang.
const stopGrace = shutdownDelay + 7*time.Second

// Bars of the return of an API server: how far apart the numbers of connections may be, how soon, and how many of all
// connections may be closed a second for it.
const (
	evenSpread  = 0.2
	evenWithin  = 3 * time.Minute
	evenPercent = 3.0 // as the lab configures it
)

// killed ends an API server by SIGKILL, and starts it again: its share of the connections comes back to it.
func (b *balanced) killed(t *testing.T) {
	movesOn(t, b.during(t, "killed", shortFault, func() { b.stop(t, server(1), 0) }))
	b.awaitStates(t, map[int]string{1: "Down"})
	begin := time.Now()
	b.start(t, server(1))
	b.awaitStates(t, nil)
	up := time.Now()
	before, err := b.status(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up again after %s: %s", up.Sub(begin).Round(time.Millisecond), describe(before, nil))
	r := b.during(t, "back", 0, func() {
		b.waitFor(t, evenWithin, "connections to be spread", func() (string, bool) {
			s, err := b.status(t)
			return describe(s, err), err == nil && apart(s) <= evenSpread
		})
	})
	after, err := b.status(t)
	if err != nil {
		t.Fatal(err)
	}
	moved, took := after.Moved["rebalancing"]-before.Moved["rebalancing"], time.Since(up)
	t.Logf("spread within %.0f %% after %s; %d of %d connections were closed for it", apart(after)*100, took.Round(time.Second), moved, after.Connections)
	if rate := float64(moved) / float64(max(1, after.Connections)) / took.Seconds() * 100; rate > evenPercent*1.1 {
		t.Errorf("%.2f %% of the connections were closed a second", rate)
	}
	nothingFails(t, r)
	if r.Watches.MostRelists > 1 {
		t.Errorf("an informer asked for all objects %d times", r.Watches.MostRelists)
	}
}

// apart is how far apart the numbers of connections are, as a share of their mean.
func apart(s apiserverlb.Status) float64 {
	least, most, sum := 1<<30, 0, 0
	for _, one := range s.Backends {
		least, most, sum = min(least, one.Connections), max(most, one.Connections), sum+one.Connections
	}
	return float64(most-least) * float64(len(s.Backends)) / float64(max(1, sum))
}

// paused makes an API server hang: the kernel still takes its connections.
func (b *balanced) paused(t *testing.T) {
	movesOn(t, b.during(t, "paused", shortFault, func() { b.signal(t, server(2), unix.SIGSTOP) }))
	b.awaitStates(t, map[int]string{2: "Down"})
	b.signal(t, server(2), unix.SIGCONT)
	b.awaitStates(t, nil)
}

// cableCut takes a control plane off the network.
func (b *balanced) cableCut(t *testing.T) {
	movesOn(t, b.during(t, "cable cut", shortFault, func() {
		if err := b.Cut(b.layout.ControlPlanes[1].Name); err != nil {
			t.Error(err)
		}
	}))
	b.awaitStates(t, map[int]string{1: "Down"})
	if err := b.Plug(b.layout.ControlPlanes[1].Name); err != nil {
		t.Fatal(err)
	}
	b.awaitStates(t, nil)
}

// partition drops what the balancer sends to an API server, which works for all others, and is listed as one that does.
func (b *balanced) partition(t *testing.T) {
	name := b.layout.ControlPlanes[2].Name
	movesOn(t, b.during(t, "partition", shortFault, func() {
		if err := b.Partition(name, b.balancer()); err != nil {
			t.Error(err)
		}
	}))
	b.awaitStates(t, map[int]string{2: "Down"})
	if err := b.Heal(name); err != nil {
		t.Fatal(err)
	}
	b.awaitStates(t, nil)
}

// etcdStalled makes etcd hang: no API server is ready, and all go on with what does not need etcd.
func (b *balanced) etcdStalled(t *testing.T) {
	begin := time.Now()
	b.signal(t, "etcd", unix.SIGSTOP)
	b.wait(t, "all API servers to be red, and used", func() (string, bool) {
		s, err := b.status(t)
		open := 0
		for _, one := range s.Backends {
			if one.State != "Up" && one.FailOpen && one.Usable {
				open++
			}
		}
		return describe(s, err), open == 3
	})
	t.Logf("all red after %s", time.Since(begin).Round(time.Millisecond))
	time.Sleep(2 * time.Second) // the time of the fault is what is tested
	b.signal(t, "etcd", unix.SIGCONT)
	r := b.during(t, "etcd stalled", 0, func() { b.awaitStates(t, nil) })
	r = b.load.Since(begin)
	t.Log(r)
	if r.Fresh.Sent < 50 || r.Fresh.Failed > 0 {
		t.Errorf("new connections: %v", r.Fresh)
	}
	if r.Watches.Lost > 0 || r.Watches.MostRelists > 1 {
		t.Errorf("watches: %v", r.Watches)
	}
}

// slow gives an API server a third of the time only. That is no reason to end what goes on with it.
func (b *balanced) slow(t *testing.T) {
	before, err := b.status(t)
	if err != nil {
		t.Fatal(err)
	}
	r := b.during(t, "slow", 0, func() {
		ctx, cancel := context.WithTimeout(t.Context(), shortFault)
		defer cancel()
		if err := b.Slow(ctx, server(1), 200*time.Millisecond, 0.3); err != nil {
			t.Error(err)
		}
	})
	nothingFails(t, r)
	after, err := b.status(t)
	if err != nil {
		t.Fatal(err)
	}
	if n := after.Moved["down"] - before.Moved["down"]; n > 0 {
		t.Errorf("%d connections of a slow API server were ended", n)
	}
	b.awaitStates(t, nil)
}

// rollingRestart restarts all API servers one after the other, as an upgrade does: nothing fails.
func (b *balanced) rollingRestart(t *testing.T) {
	for i := range b.layout.ControlPlanes {
		r := b.during(t, "restart of "+server(i), 0, func() {
			b.stop(t, server(i), stopGrace)
			b.start(t, server(i))
			b.awaitStates(t, nil)
		})
		nothingFails(t, r)
		if r.Watches.MostRelists > 1 {
			t.Errorf("an informer asked for all objects %d times", r.Watches.MostRelists)
		}
	}
}

// expired has an API server come back with a certificate that no client accepts.
func (b *balanced) expired(t *testing.T) {
	h := b.layout.ControlPlanes[2]
	r := b.during(t, "certificate expired", 0, func() {
		if err := b.layout.Serve(h, time.Now().Add(-time.Hour)); err != nil {
			t.Error(err)
		}
		b.stop(t, server(2), stopGrace)
		b.start(t, server(2))
		b.wait(t, "the balancer to tell of the certificate", func() (string, bool) {
			s, err := b.status(t)
			state := stateOf(s, h)
			return describe(s, err), err == nil && state.State != "Up" && strings.Contains(state.Reason, "certificate")
		})
		time.Sleep(3 * time.Second) // for clients to meet the certificate, were they sent there
		if err := b.layout.Serve(h, time.Now().Add(24*time.Hour)); err != nil {
			t.Error(err)
		}
		b.stop(t, server(2), stopGrace)
		b.start(t, server(2))
		b.awaitStates(t, nil)
	})
	if r.Kept.Failed > 0 || r.Fresh.Share() > mostFreshLost {
		t.Errorf("requests: %v; %v", r.Kept, r.Fresh)
	}
}

// slicesEmpty empties the list of API servers in the API, which they write again within ten seconds: the balancer keeps
// what it had.
func (b *balanced) slicesEmpty(t *testing.T) {
	client, err := kubernetes.NewForConfig(b.configFor(t, b.layout.ControlPlanes[0]))
	if err != nil {
		t.Fatal(err)
	}
	slices := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	for what, change := range map[string]func() error{
		"emptied": func() error {
			_, err := slices.Patch(t.Context(), "kubernetes", types.MergePatchType, []byte(`{"endpoints":[]}`), metav1.PatchOptions{})
			return err
		},
		"deleted": func() error { return slices.Delete(t.Context(), "kubernetes", metav1.DeleteOptions{}) },
	} {
		r := b.during(t, "slices "+what, 2*time.Second, func() {
			if err := change(); err != nil {
				t.Error(err)
			}
		})
		nothingFails(t, r)
		b.awaitStates(t, nil)
		b.wait(t, "the API servers to be listed again", func() (string, bool) {
			s, err := slices.Get(t.Context(), "kubernetes", metav1.GetOptions{})
			return fmt.Sprint(s, err), err == nil && len(s.Endpoints) == 3
		})
	}
}

// allDown ends all API servers and restarts the balancer, which finds none in the API then, and nobody at the address that it
// is configured with: it goes by its cache.
func (b *balanced) allDown(t *testing.T) {
	b.configure(t, b.layout.BalancerText([]string{"10.240.0.200:6443"}))
	b.awaitStates(t, nil)
	r := b.during(t, "all down, and back", 0, func() {
		var stopping sync.WaitGroup
		for i := range b.layout.ControlPlanes {
			stopping.Go(func() { b.stop(t, server(i), 0) })
		}
		stopping.Wait()
		b.awaitNoneUp(t)
		b.stop(t, controlplane.BalancerName, 10*time.Second)
		b.start(t, controlplane.BalancerName)
		b.awaitNoneUp(t)
		for i := range b.layout.ControlPlanes {
			b.start(t, server(i))
		}
		b.awaitStates(t, nil)
		b.wait(t, "requests to be answered", func() (string, bool) {
			since := time.Now()
			time.Sleep(time.Second) // of load
			r := b.load.Since(since)
			return r.String(), r.Fresh.Failed+r.Kept.Failed == 0 && r.Fresh.Sent > 0
		})
	})
	if r.Watches.MostRelists > 1 {
		t.Errorf("an informer asked for all objects %d times", r.Watches.MostRelists)
	}
}

// awaitNoneUp waits until the balancer knows all API servers, and that none is up.
func (b *balanced) awaitNoneUp(t *testing.T) {
	t.Helper()
	b.wait(t, "three API servers that are down", func() (string, bool) {
		s, err := b.status(t)
		ok := err == nil
		for _, h := range b.layout.ControlPlanes {
			ok = ok && stateOf(s, h).State == "Down"
		}
		return describe(s, err), ok
	})
}
