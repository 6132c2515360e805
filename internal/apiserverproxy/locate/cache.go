package locate

import (
	"strings"
	"sync"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiwatch/directory"
)

const (
	// maxCached bounds what a Locator keeps, in bytes as size counts them.
	maxCached = 48 << 20
	// entryBytes is what an entry takes without its texts and endpoints, of which each takes endpointBytes.
	entryBytes, endpointBytes = 512, 96
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

	bytes int // set by put
}

// size returns about how many bytes an entry takes. Clients choose the texts of those that are errors.
func (e *entry) size(k key) int {
	n := entryBytes + len(k.namespace) + len(k.id)
	if e.err != nil {
		n += len(e.err.Error())
	}
	if e.dest != nil {
		n += endpointBytes * len(e.dest.Endpoints)
	}
	return n
}

// cache is a bounded map. When it is full, entries go in no order: what is asked for often is back soon.
type cache struct {
	max int // bytes

	mu      sync.RWMutex
	bytes   int
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
	e.bytes = e.size(k)
	if len(k.namespace)+len(k.id) > maxCachedID || e.bytes > c.max {
		return
	}
	k.namespace, k.id = strings.Clone(k.namespace), strings.Clone(k.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(k)
	for other := range c.entries {
		if c.bytes+e.bytes <= c.max {
			break
		}
		c.remove(other)
	}
	c.entries[k] = e
	c.bytes += e.bytes
}

func (c *cache) remove(k key) {
	if e := c.entries[k]; e != nil {
		c.bytes -= e.bytes
		delete(c.entries, k)
	}
}
