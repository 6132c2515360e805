package locate

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"unsafe"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"varco.dev/internal/apiserverproxy/address"
)

// The cache is bounded by what it holds, not by how many entries it has, and finds what it says it has.
func TestCacheBounded(t *testing.T) {
	c := newCache(20_000)
	big := func(n int) *entry { return &entry{dest: &Destination{Endpoints: make([]Endpoint, n)}} }
	for i := range 1000 {
		k := key{id: strconv.Itoa(i)}
		c.put(k, big(i%40))
		if c.get(k) == nil {
			t.Fatalf("entry %d is not there", i)
		}
		if n := held(c); n != c.bytes || n > c.max {
			t.Fatalf("it holds %d, and says %d of %d", n, c.bytes, c.max)
		}
	}
	k := key{id: "999"}
	before := len(c.entries)
	c.put(k, big(1))
	if len(c.entries) != before || held(c) != c.bytes {
		t.Errorf("replaced: %d entries, %d before; %d bytes, held %d", len(c.entries), before, c.bytes, held(c))
	}
	c.put(key{id: "too big"}, big(c.max/endpointBytes))
	c.put(key{id: strings.Repeat("x", maxCachedID+1)}, big(0))
	if len(c.entries) != before {
		t.Error("what is too big was kept")
	}
}

// TestCacheMemory fills a cache with what takes most for its size: a client may ask for ever other long names of ports, and
// pods have one endpoint each.
func TestCacheMemory(t *testing.T) {
	const most = maxCached / 8
	for name, fill := range map[string]func(i int) (key, *entry){
		"errors": func(i int) (key, *entry) {
			k := key{id: fmt.Sprintf("web:%s%d", strings.Repeat("x", 480), i)}
			return k, &entry{err: noPort(address.Address{Name: "web", Port: k.id[4:]})}
		},
		"pods": func(i int) (key, *entry) {
			d := &Destination{Name: fmt.Sprintf("deployment-6d4b75cb6d-%05d", i), Port: "8080", Scheme: HTTP, Endpoints: make([]Endpoint, 1)}
			_, err := d.finish("0b0b0b0b-0b0b-0b0b-0b0b-000000000000", d.TLS)
			return key{id: d.Name}, &entry{dest: d, err: err}
		},
	} {
		c, before := newCache(most), heap()
		for i := range most / entryBytes {
			c.put(fill(i))
		}
		if used := heap() - before; used < most/2 || used > most*5/4 {
			t.Errorf("%s: %d bytes are in use for %d", name, used, most)
		}
		runtime.KeepAlive(c)
	}
}

// heap returns how many bytes are in use.
func heap() int {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Keys are parts of requests' paths, which must not stay with them.
func TestCacheClonesKeys(t *testing.T) {
	c := newCache(1000)
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
		sum += e.bytes
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
