package service

import (
	"net/netip"
	"slices"
	"time"
)

// maxTriggers bounds the trigger times that are kept between two calls of Changes. They feed a histogram: at the first
// listing of a big cluster the rest is not missed.
const maxTriggers = 10000

// Table holds what the API says and derives the desired state from it. Objects may be set and deleted in any order; a
// Slice may come before its Service. What is set to what it is already changes nothing. It is not safe for concurrent use.
type Table struct {
	node       string
	attributes Node
	entries    map[Name]*entry // by Service
	owners     map[Name]*entry // by Slice
	claims     claims
	dirty      []*entry             // to be looked at in the next Changes, each once
	triggers   map[Name][]time.Time // by Service
	triggered  int                  // how many there are

	nodeAddrs, oldNode []netip.Addr
	cidrs, oldCIDRs    []netip.Prefix
}

// entry is all that belongs to the Service of a name.
type entry struct {
	name    Name
	service *Service     // nil: not known
	slices  []*Slice     // sorted by name
	ports   []*Port      // as last returned by Changes; sorted by key
	health  *HealthCheck // as last returned by Changes
	isDirty bool
}

// NewTable returns an empty table for the node of that name; endpoints on it are Local. A name of "" has none be Local.
func NewTable(node string) *Table {
	return &Table{
		node:     node,
		entries:  map[Name]*entry{},
		owners:   map[Name]*entry{},
		claims:   claims{},
		triggers: map[Name][]time.Time{},
	}
}

// SetNode sets what is known about the node. The Services that depend on what is different are looked at again.
func (t *Table) SetNode(n Node) {
	n.Addrs = slices.Clone(n.Addrs)
	old := t.attributes
	t.attributes = n
	if old.equal(n) {
		return
	}
	for _, e := range t.entries {
		if e.dependsOnZone() && old.Zone != n.Zone || e.dependsOnAddrs() && !slices.Equal(old.Addrs, n.Addrs) {
			t.touch(e)
		}
	}
}

func (e *entry) dependsOnZone() bool {
	return slices.ContainsFunc(e.slices, func(s *Slice) bool {
		return slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return len(e.ForZones) > 0 })
	})
}

func (e *entry) dependsOnAddrs() bool { return e.service != nil && len(e.service.Sources) > 0 }

// SetNodeAddrs sets the addresses at which NodePorts are served (see Changes.NodeAddrs).
func (t *Table) SetNodeAddrs(addrs []netip.Addr) {
	t.nodeAddrs = slices.Clone(addrs)
	slices.SortFunc(t.nodeAddrs, netip.Addr.Compare)
	t.nodeAddrs = slices.Compact(t.nodeAddrs)
}

// SetCIDRs sets the networks that ClusterIPs are taken from.
func (t *Table) SetCIDRs(cidrs []netip.Prefix) {
	t.cidrs = nil
	for _, c := range cidrs {
		t.cidrs = append(t.cidrs, c.Masked())
	}
	slices.SortFunc(t.cidrs, netip.Prefix.Compare)
	t.cidrs = slices.Compact(t.cidrs)
}

// Changes returns what is different since the last call. Its cost grows with what was touched, not with the table.
func (t *Table) Changes() Changes {
	c := Changes{OldNode: t.oldNode, NodeAddrs: t.nodeAddrs, OldCIDRs: t.oldCIDRs, CIDRs: t.cidrs}
	for _, e := range t.dirty {
		e.isDirty = false
		c.Ports = append(c.Ports, t.refresh(e)...)
		if h := t.healthCheck(e.service, e.slices); !sameHealth(e.health, h) {
			c.Health = append(c.Health, HealthChange{Old: e.health, New: h})
			e.health = h
		}
		t.forget(e)
	}
	t.dirty = nil
	t.oldNode, t.oldCIDRs = t.nodeAddrs, t.cidrs
	for _, times := range t.triggers {
		c.Triggers = append(c.Triggers, times...)
	}
	clear(t.triggers)
	t.triggered = 0
	c.sort()
	return c
}

// All returns the whole desired state as Changes from nothing, as of the last call of Changes.
func (t *Table) All() Changes {
	c := Changes{NodeAddrs: t.oldNode, CIDRs: t.oldCIDRs}
	for _, e := range t.entries {
		for _, p := range e.ports {
			c.Ports = append(c.Ports, Change{New: p})
		}
		if e.health != nil {
			c.Health = append(c.Health, HealthChange{New: e.health})
		}
	}
	c.sort()
	return c
}

func (c Changes) sort() {
	slices.SortFunc(c.Ports, func(a, b Change) int { return a.Key().Compare(b.Key()) })
	slices.SortFunc(c.Health, func(a, b HealthChange) int { return a.service().Compare(b.service()) })
	slices.SortFunc(c.Triggers, time.Time.Compare)
}

func (c HealthChange) service() Name {
	if c.New != nil {
		return c.New.Service
	}
	return c.Old.Service
}

func sameHealth(h, k *HealthCheck) bool { return h == k || h != nil && k != nil && *h == *k }

// refresh derives the ports of one Service again and returns those that differ.
func (t *Table) refresh(e *entry) (changes []Change) {
	var after []*Port
	if e.service != nil {
		ws := wishes(e.service)
		after = make([]*Port, 0, len(ws))
		for _, w := range ws {
			p, old := t.derive(e.service, w, e.slices), e.port(w.key)
			switch {
			case old == nil || !old.equal(p):
				changes = append(changes, Change{Old: old, New: p})
			default:
				p = old
			}
			after = append(after, p)
		}
		slices.SortFunc(after, func(a, b *Port) int { return a.Key.Compare(b.Key) })
	}
	before := e.ports
	e.ports = after
	for _, p := range before {
		if e.port(p.Key) == nil {
			changes = append(changes, Change{Old: p})
		}
	}
	return changes
}

// port returns the port of a key as last returned by Changes, or nil.
func (e *entry) port(k Key) *Port {
	i, ok := slices.BinarySearchFunc(e.ports, k, func(p *Port, k Key) int { return p.Key.Compare(k) })
	if !ok {
		return nil
	}
	return e.ports[i]
}

// touch has an entry looked at in the next Changes.
func (t *Table) touch(e *entry) {
	if !e.isDirty {
		e.isDirty = true
		t.dirty = append(t.dirty, e)
	}
}

// entry returns the entry of a name and makes one if there is none.
func (t *Table) entry(n Name) *entry {
	e := t.entries[n]
	if e == nil {
		e = &entry{name: n}
		t.entries[n] = e
	}
	return e
}

// forget drops an entry that holds nothing.
func (t *Table) forget(e *entry) {
	if e.service == nil && len(e.slices) == 0 && len(e.ports) == 0 {
		delete(t.entries, e.name)
	}
}
