package measure_test

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/measure"
	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/world"
	"varco.dev/internal/nettest"
)

// services is the number of Services in these tests.
const services = 40

// bed is a world with a process that does nothing, and objects that a fake API has.
type bed struct {
	world   *world.World
	process *contender.Process
	store   *objects.Store
	watch   *objects.Watch
}

func newBed(t *testing.T) *bed {
	t.Helper()
	nettest.NeedRoot(t)
	w, err := world.New(t.Context(), "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	idle := contender.Contender{Name: "idle", Path: "sleep", Args: []string{"600"}}
	p, err := contender.Start(w.Node, idle, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	client := fake.NewClientset()
	b := &bed{world: w, process: p, store: objects.NewStore(client)}
	if err := b.store.Grow(t.Context(), services); err != nil {
		t.Fatal(err)
	}
	if b.watch, err = objects.StartWatch(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	return b
}

// serve answers connections to all Services as if a proxy had sent them to the side that side says.
func (b *bed) serve(t *testing.T, side func(service netip.Addr) world.Side) {
	t.Helper()
	b.answer(t, func(to netip.Addr) probe.Answer { return probe.Answer{Name: side(to).Name(), Addr: to} })
}

// answer answers connections to all Services.
func (b *bed) answer(t *testing.T, answer func(service netip.Addr) probe.Answer) {
	t.Helper()
	l, err := b.world.Void.Listen("tcp4", "0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			to := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
			_, _ = c.Write(answer(to).Encode())
			c.Close()
		}
	}()
}

func TestColdStartEndsWhenAllAnswer(t *testing.T) {
	b := newBed(t)
	if silent, err := measure.Verify(t.Context(), b.world, services); err != nil || silent != services {
		t.Errorf("before the start %d Services are silent, %v, want %d", silent, err, services)
	}
	const delay = 100 * time.Millisecond
	time.AfterFunc(delay, func() { b.serve(t, func(netip.Addr) world.Side { return world.A }) })
	took, err := measure.ColdStart(t.Context(), b.world, b.process, services)
	if err != nil || took < delay {
		t.Errorf("the start took %v, %v, want more than %v", took, err, delay)
	}
	if silent, err := measure.Verify(t.Context(), b.world, services); err != nil || silent != 0 {
		t.Errorf("after the start %d Services are silent, %v", silent, err)
	}
}

func TestColdStartTellsOfAProcessThatEnds(t *testing.T) {
	b := newBed(t)
	b.process.Stop()
	if took, err := measure.ColdStart(t.Context(), b.world, b.process, services); err == nil {
		t.Errorf("a process that has ended started in %v", took)
	}
}

func TestChangesAreSeenByPackets(t *testing.T) {
	b := newBed(t)
	const delay = 5 * time.Millisecond
	var since time.Time
	last := map[netip.Addr]world.Side{}
	b.serve(t, func(to netip.Addr) world.Side { // follows the API, late by delay
		now := b.store.Side(number(to))
		if now == last[to] {
			return now
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < delay {
			return last[to]
		}
		last[to], since = now, time.Time{}
		return now
	})
	c := measure.Changer{World: b.world, Process: b.process, Store: b.store, Watch: b.watch, Services: services}
	got, _, err := c.Changes(t.Context(), 5)
	if err != nil || len(got) != 5 {
		t.Fatalf("got %d changes, %v, want 5", len(got), err)
	}
	for _, ch := range got {
		if ch.Packet < delay || ch.Packet < ch.Written || ch.Written <= 0 || ch.Watched <= 0 {
			t.Errorf("got %+v, want a packet after the API's answer and after %v", ch, delay)
		}
	}
}

func number(to netip.Addr) int {
	for i := range services {
		if objects.ClusterIP(i).Addr() == to {
			return i
		}
	}
	return -1
}

func TestConnectsTakesBothWaysInEachWorld(t *testing.T) {
	a, b := newBed(t), newBed(t)
	for _, bed := range []*bed{a, b} {
		bed.serve(t, func(netip.Addr) world.Side { return world.A })
	}
	got, err := measure.Connects(t.Context(), []*world.World{a.world, b.world}, a.store, services, 100)
	if err != nil || len(got) != 2 {
		t.Fatalf("got %d worlds, %v, want 2", len(got), err)
	}
	for i, l := range got {
		if len(l.Direct) != 100 || len(l.ClusterIP) != 100 {
			t.Errorf("world %d: %d connections directly and %d by ClusterIP, want 100 of each", i, len(l.Direct), len(l.ClusterIP))
		}
	}
}

func TestAffinityCountsStrays(t *testing.T) {
	b := newBed(t)
	b.serve(t, func(netip.Addr) world.Side { return world.A })
	got, err := measure.Affinity(t.Context(), []*world.World{b.world}, 2, 500)
	if err != nil {
		t.Fatal(err)
	}
	if r := got[0]; len(r.Plain) != 2 || len(r.Sticky) != 2 || r.Plain[0] <= 0 || r.Strays != 0 {
		t.Errorf("got %+v, want two rates of each and no strays", r)
	}
}

func TestAffinityCountsEveryStray(t *testing.T) {
	b := newBed(t)
	at := world.A.Net().Addr()
	b.answer(t, func(netip.Addr) probe.Answer {
		at = at.Next() // each connection comes to another endpoint
		return probe.Answer{Name: world.A.Name(), Addr: at}
	})
	got, err := measure.Affinity(t.Context(), []*world.World{b.world}, 2, 500)
	// 250 clients connect twice in each turn.
	if err != nil || got[0].Strays != 500 {
		t.Errorf("got %+v, %v, want 500 strays", got, err)
	}
}

func TestChurnKeepsItsRate(t *testing.T) {
	b := newBed(t)
	c := measure.StartChurn(t.Context(), b.store, services, 200)
	began := time.Now()
	for c.Made() < 20 {
		time.Sleep(time.Millisecond) // for the changes to be made
	}
	took := time.Since(began)
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if least := 90 * time.Millisecond; took < least {
		t.Errorf("20 changes at 200 a second took %v, want %v or more", took, least)
	}
	made := c.Made()
	for i := 0; i < services; i += 2 {
		if b.store.Side(i) != world.A {
			t.Errorf("Service %d of even number was changed", i)
		}
	}
	if c.Made() != made {
		t.Error("changes go on after Stop")
	}
}

func TestChurnStopsWithItsContext(t *testing.T) {
	b := newBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := measure.StartChurn(ctx, b.store, services, 1000)
	cancel()
	if err := c.Stop(); err != nil {
		t.Errorf("got %v, want no error: a change that was cut off is none", err)
	}
}
