package locate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"unsafe"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiwatch/directory"
)

// budget is how many allocations a request may cost here while nothing changes.
const budget = 2

func TestAllocations(t *testing.T) {
	w := web(port("http", 80))
	w.put(node(0, "Hostname", "n"))
	w.put(newService("empty", port("http", 80)))
	l := locate.New(locate.Config{}, w)
	for kind, id := range map[address.Kind]string{address.Pod: "https:a:443", address.Service: "http:web:80", address.Node: "node0"} {
		a := parsed(t, kind, id)
		got := testing.AllocsPerRun(100, func() {
			if _, err := l.Locate(t.Context(), a); err != nil {
				t.Error(err)
			}
		})
		if got > budget {
			t.Errorf("%s: %v allocations, the budget is %d", kind, got, budget)
		}
	}
	a := parsed(t, address.Service, "empty")
	if got := testing.AllocsPerRun(100, func() { _, _ = l.Locate(t.Context(), a) }); got > budget {
		t.Errorf("a Service without endpoints: %v allocations", got)
	}
}

// A destination is computed once for each version of its Service, whatever its result.
func TestServiceVersions(t *testing.T) {
	w := web(port("http", 80))
	w.put(newService("empty", port("http", 80)))
	l := locate.New(locate.Config{}, w)
	for range 3 {
		_, _ = find(t, l, address.Service, "web")
		_, _ = find(t, l, address.Service, "empty")
		_, _ = find(t, l, address.Service, "empty:81")
	}
	if w.asked != 3 {
		t.Errorf("computed %d times", w.asked)
	}
	w.put(newPod("a", "10.0.0.2"))
	w.put(newSlice("web", "web-1", "http", 8080, ready("10.0.0.2", "a")))
	if d, err := find(t, l, address.Service, "web"); err != nil || !slices.Equal(addrs(d), []string{"10.0.0.2:8080"}) {
		t.Errorf("after a change: error %v, %+v", err, d)
	}
	w.put(newPod("a", "10.0.0.3"))
	_, err := find(t, l, address.Service, "web")
	refused(t, "the pod has another address", err, 503, `no endpoints available for service "web"`)
	w.put(newPod("a", "10.0.0.2"))
	if _, err := find(t, l, address.Service, "web"); err != nil {
		t.Errorf("the pod has its address again: %v", err)
	}
}

// What could not be looked up is not remembered as missing.
func TestServiceLookupFails(t *testing.T) {
	w := web(port("http", 80))
	w.broken = true
	l := locate.New(locate.Config{}, w)
	_, err := find(t, l, address.Service, "web")
	refused(t, "broken", err, 503, `no endpoints available for service "web"`)
	w.broken = false
	if _, err := find(t, l, address.Service, "web"); err != nil {
		t.Errorf("after the API server is back: %v", err)
	}
}

// A Service is looked up again while the directory knows nothing of it, and one that is made is found at once.
func TestServiceMade(t *testing.T) {
	w := newWorld(newPod("a", "10.0.0.1"))
	l := locate.New(locate.Config{}, w)
	_, err := find(t, l, address.Service, "web")
	refused(t, "before", err, 503, `no endpoints available for service "web"`)
	w.put(newSlice("web", "1", "", 80, ready("10.0.0.1", "a")))
	w.put(newService("web", port("", 80)))
	if _, err := find(t, l, address.Service, "web"); err != nil {
		t.Errorf("after: %v", err)
	}
}

// A Service that the watch does not know is found every time anew: nothing would tell of its changes.
func TestServiceBehind(t *testing.T) {
	w := web(port("http", 80))
	w.behind = true
	l := locate.New(locate.Config{}, w)
	for range 2 {
		if _, err := find(t, l, address.Service, "web"); err != nil {
			t.Error(err)
		}
	}
	if w.asked != 2 {
		t.Errorf("computed %d times", w.asked)
	}
}

// An API server that does not answer holds a request up for a while, not for ever.
func TestServiceLookupHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := web(port("http", 80))
		w.hang = true
		_, err := find(t, locate.New(locate.Config{}, w), address.Service, "web")
		refused(t, "hanging", err, 503, `no endpoints available for service "web"`)
	})
}

// Requests that come while an answer is computed share it, and those whose client goes do not wait; that the first one goes
// does not matter to the others.
func TestServiceShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := web(port("http", 80))
		w.slow = make(chan struct{})
		l := locate.New(locate.Config{}, w)
		a := parsed(t, address.Service, "web")
		first, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 10 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			all.Go(func() {
				if d, err := l.Locate(ctx, a); err != nil || len(d.Endpoints) != 1 {
					t.Errorf("error %v, %+v", err, d)
				}
			})
			synctest.Wait()
		}
		leave()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Locate(gone, a); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that is gone: %v", err)
		}
		close(w.slow)
		all.Wait()
		if w.asked != 1 {
			t.Errorf("computed %d times", w.asked)
		}
	})
}

// What comes from a request is not kept for longer: its strings are parts of its path, which may be long.
func TestCacheKeepsNoPath(t *testing.T) {
	w := newWorld(newService("web"), newPod("a", "10.0.0.1"), newSlice("web", "1", "odd", 80, ready("10.0.0.1", "a")))
	l := locate.New(locate.Config{}, w)
	a := parsed(t, address.Service, "web:odd")
	d, err := l.Locate(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
	if same(d.Port, a.Port) || same(d.Name, a.Name) || same(d.Namespace, a.Namespace) {
		t.Error("a part of the path is kept")
	}
}

func TestConcurrent(t *testing.T) {
	w := web(port("http", 80))
	l := locate.New(locate.Config{}, w)
	a := parsed(t, address.Service, "web")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 200 {
				if i == 0 && n%10 == 0 {
					w.put(newSlice("web", "web-1", "http", uint16(8000+n), ready("10.0.0.1", "a")))
				}
				if d, err := l.Locate(context.Background(), a); err != nil || len(d.Endpoints) != 1 {
					t.Errorf("error %v, %+v", err, d)
				}
			}
		})
	}
	all.Wait()
	if d, err := l.Locate(t.Context(), a); err != nil || d.Endpoints[0].Addr.Port() != 8190 {
		t.Errorf("the last change is not seen: error %v, %+v", err, d)
	}
}

// BenchmarkLocate: what a request to a Service of many endpoints costs while nothing changes, and after a change.
func BenchmarkLocate(b *testing.B) {
	w := newWorld(newService("web", port("http", 80)))
	for s := range 50 {
		slice := newSlice("web", fmt.Sprint(s), "http", 80)
		for e := range 100 {
			addr, pod := fmt.Sprintf("10.0.%d.%d", s, e), fmt.Sprintf("p-%d-%d", s, e)
			w.put(newPod(pod, addr))
			slice.Endpoints = append(slice.Endpoints, ready(addr, pod))
		}
		w.put(slice)
	}
	l := locate.New(locate.Config{}, w)
	a := parsed(b, address.Service, "web")
	for name, before := range map[string]func(){"same": func() {}, "changed": func() { w.put(&directory.Node{}) }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before()
				if d, err := l.Locate(b.Context(), a); err != nil || len(d.Endpoints) != 5000 {
					b.Fatal(err)
				}
			}
		})
	}
}
