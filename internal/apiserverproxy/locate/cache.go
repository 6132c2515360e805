package locate

import (
	"strings"
	"sync"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiwatch/directory"
)

const (
	// maxCached bounds what a Locator keeps, counted in endpoints and one more for each destination: some 40 MiB.
	maxCached = 1 << 18
	// maxCachedID is the longest ID that is kept: no object and no port have longer names (253 bytes and 63 or 15).
	maxCachedID = 512
)

// key is what an entry is found by.
type key struct {
	kind          address.Kind
	namespace, id string
}

// entry is what was found, and from what: the version of a Service, a pod, or a node.
type entry struct {
	version uint64
	pod     *directory.Pod
	node    *directory.Node

	dest *Destination
	err  error
}

func (e *entry) weight() int {
	if e.dest == nil {
		return 1
	}
	return 1 + len(e.dest.Endpoints)
}

// cache is a bounded map. When it is full, entries go in no order: what is asked for often is back soon.
type cache struct {
	max int

	mu      sync.RWMutex
	weight  int
	entries map[key]*entry
}

func newCache(max int) *cache { return &cache{max: max, entries: map[key]*entry{}} }

func (c *cache) get(k key) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.entries[k]
}

// put keeps an entry. The key is cloned: it is a part of a request's path, all of which would stay with it.
func (c *cache) put(k key, e *entry) {
	if len(k.namespace)+len(k.id) > maxCachedID || e.weight() > c.max {
		return
	}
	k.namespace, k.id = strings.Clone(k.namespace), strings.Clone(k.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(k)
	for other := range c.entries {
		if c.weight+e.weight() <= c.max {
			break
		}
		c.remove(other)
	}
	c.entries[k] = e
	c.weight += e.weight()
}

func (c *cache) remove(k key) {
	if e := c.entries[k]; e != nil {
		c.weight -= e.weight()
		delete(c.entries, k)
	}
}
