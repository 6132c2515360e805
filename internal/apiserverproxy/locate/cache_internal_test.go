package locate

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"unsafe"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The cache is bounded by what it holds, not by how many entries it has, and finds what it says it has.
func TestCacheBounded(t *testing.T) {
	c := newCache(100)
	big := func(n int) *entry { return &entry{dest: &Destination{Endpoints: make([]Endpoint, n)}} }
	for i := range 1000 {
		k := key{id: strconv.Itoa(i)}
		c.put(k, big(i%40))
		if c.get(k) == nil {
			t.Fatalf("entry %d is not there", i)
		}
		if w := held(c); w != c.weight || w > c.max {
			t.Fatalf("it holds %d, and says %d of %d", w, c.weight, c.max)
		}
	}
	k := key{id: "999"}
	before := len(c.entries)
	c.put(k, big(1))
	if len(c.entries) != before || held(c) != c.weight {
		t.Errorf("replaced: %d entries, %d before; weight %d, held %d", len(c.entries), before, c.weight, held(c))
	}
	c.put(key{id: "too big"}, big(100))
	c.put(key{id: strings.Repeat("x", maxCachedID+1)}, big(0))
	if len(c.entries) != before {
		t.Error("what is too big was kept")
	}
}

// Keys are parts of requests' paths, which must not stay with them.
func TestCacheClonesKeys(t *testing.T) {
	c := newCache(10)
	k := key{namespace: "ns", id: "web"}
	c.put(k, &entry{})
	for kept := range c.entries {
		if unsafe.StringData(kept.id) == unsafe.StringData(k.id) || unsafe.StringData(kept.namespace) == unsafe.StringData(k.namespace) {
			t.Error("the key is not a clone")
		}
	}
}

func held(c *cache) (sum int) {
	for _, e := range c.entries {
		sum += e.weight()
	}
	return sum
}

// A computation that panics does not leave the others waiting, nor the next ones.
func TestFlightPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := flights{of: map[flightKey]*flight{}}
		fault, joined := make(chan struct{}), make(chan error, 1)
		go func() {
			defer func() { _ = recover() }()
			_, _ = f.do(t.Context(), flightKey{}, func() (*Destination, error) { <-fault; panic("a fault") })
		}()
		synctest.Wait()
		go func() {
			_, err := f.do(t.Context(), flightKey{}, func() (*Destination, error) { return nil, nil })
			joined <- err
		}()
		synctest.Wait()
		close(fault)
		if err := <-joined; !apierrors.IsInternalError(err) {
			t.Errorf("who waited got %v", err)
		}
		if _, err := f.do(t.Context(), flightKey{}, func() (*Destination, error) { return nil, nil }); err != nil {
			t.Errorf("the next one got %v", err)
		}
	})
}
