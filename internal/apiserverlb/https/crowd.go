package https

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// widthIPv6 is how much of an address of IPv6 one network has, within which a client may choose any.
const widthIPv6 = 64

// crowd counts connections, and lets no more in than may be.
type crowd struct {
	refused, crowded atomic.Int64 // by Connections, and by PerSource
	misread          atomic.Int64 // without a header of the PROXY protocol that was due
	vanished         atomic.Int64 // left bytes unacknowledged

	mu      sync.Mutex // guards the fields below
	limits  Limits
	open    map[*visitor]struct{}
	sources map[netip.Prefix]int
}

func newCrowd(l Limits) *crowd {
	return &crowd{limits: l, open: map[*visitor]struct{}{}, sources: map[netip.Prefix]int{}}
}

func (c *crowd) set(l Limits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = l
}

// enter counts a connection in, or resets it.
func (c *crowd) enter(conn *net.TCPConn) (*visitor, bool) {
	c.mu.Lock()
	full := len(c.open) >= c.limits.Connections
	v := &visitor{TCPConn: conn, crowd: c}
	v.silence.of(conn)
	if !full {
		c.open[v] = struct{}{}
	}
	c.mu.Unlock()
	if full {
		c.refused.Add(1)
		reset(conn)
		return nil, false
	}
	return v, true
}

// name counts it under its client's address, or resets it.
func (c *crowd) name(v *visitor, client netip.AddrPort) bool {
	source := sourceOf(client.Addr())
	c.mu.Lock()
	full := c.limits.PerSource > 0 && c.sources[source] >= c.limits.PerSource
	if !full {
		c.sources[source]++
		v.source = source
	}
	c.mu.Unlock()
	if full {
		c.crowded.Add(1)
		reset(v.TCPConn)
		v.Close()
	}
	return !full
}

// refuse resets a connection that is not understood.
func (c *crowd) refuse(v *visitor) {
	c.misread.Add(1)
	reset(v.TCPConn)
	v.Close()
}

// all returns those that were written to.
func (c *crowd) all() (all []*visitor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for v := range c.open {
		if v.silence.wrote.Load() {
			all = append(all, v)
		}
	}
	return all
}

// lose resets the connection of a client that has vanished.
func (c *crowd) lose(v *visitor) {
	c.vanished.Add(1)
	reset(v.TCPConn)
	v.Close()
}

// leave counts it out, once.
func (c *crowd) leave(v *visitor) {
	v.once.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, v)
		if !v.source.IsValid() {
			return
		}
		if c.sources[v.source]--; c.sources[v.source] == 0 {
			delete(c.sources, v.source)
		}
	})
}

// count returns how many are open.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// sourceOf returns the network that a client is counted under.
func sourceOf(client netip.Addr) netip.Prefix {
	bits := client.BitLen()
	if client.Is6() && !client.Is4In6() {
		bits = widthIPv6
	}
	p, err := client.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: not counted
	}
	return p
}
