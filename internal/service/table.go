package service

import (
	"net/netip"
	"slices"
)

// Table holds what the API says and derives the desired state from it. Objects may be set and deleted in any order; a
// Slice may come before its Service. It is not safe for concurrent use.
type Table struct {
	node     string
	services map[Name]*Service
	slices   map[Name]map[Name]*Slice // Service -> slice -> Slice
	owners   map[Name]Name            // slice -> Service
	claims   claims
	ports    map[Key]*Port  // as last returned by Changes
	keys     map[Name][]Key // Service -> its keys in ports
	dirty    map[Name]bool  // Services to look at in the next Changes

	nodeAddrs, oldNode []netip.Addr
}

// NewTable returns an empty table for the node of that name; endpoints on it are Local.
func NewTable(node string) *Table {
	return &Table{
		node:     node,
		services: map[Name]*Service{},
		slices:   map[Name]map[Name]*Slice{},
		owners:   map[Name]Name{},
		claims:   claims{},
		ports:    map[Key]*Port{},
		keys:     map[Name][]Key{},
		dirty:    map[Name]bool{},
	}
}

// SetService adds a Service or replaces the one of that name.
func (t *Table) SetService(s *Service) {
	old := t.services[s.Name]
	t.services[s.Name] = s
	t.dirty[s.Name] = true
	t.claim(s)
	if old != nil {
		t.unclaim(old, s)
	}
}

// DeleteService removes a Service; one that is not there is not an error.
func (t *Table) DeleteService(n Name) {
	if old := t.services[n]; old != nil {
		delete(t.services, n)
		t.dirty[n] = true
		t.unclaim(old, nil)
	}
}

// SetSlice adds a Slice or replaces the one of that name, which may have belonged to another Service.
func (t *Table) SetSlice(s *Slice) {
	if owner, ok := t.owners[s.Name]; ok && owner != s.Service {
		t.DeleteSlice(s.Name)
	}
	if t.slices[s.Service] == nil {
		t.slices[s.Service] = map[Name]*Slice{}
	}
	t.slices[s.Service][s.Name] = s
	t.owners[s.Name] = s.Service
	t.dirty[s.Service] = true
}

// DeleteSlice removes a Slice; one that is not there is not an error.
func (t *Table) DeleteSlice(n Name) {
	owner, ok := t.owners[n]
	if !ok {
		return
	}
	delete(t.owners, n)
	delete(t.slices[owner], n)
	if len(t.slices[owner]) == 0 {
		delete(t.slices, owner)
	}
	t.dirty[owner] = true
}

// SetNodeAddrs sets the addresses at which NodePorts are served.
func (t *Table) SetNodeAddrs(addrs []netip.Addr) {
	t.nodeAddrs = slices.Clone(addrs)
	slices.SortFunc(t.nodeAddrs, netip.Addr.Compare)
	t.nodeAddrs = slices.Compact(t.nodeAddrs)
}

// NodeAddrs returns the addresses at which NodePorts are served, sorted.
func (t *Table) NodeAddrs() []netip.Addr { return slices.Clone(t.nodeAddrs) }

// Changes returns what is different since the last call. Its cost grows with what was touched, not with the table.
func (t *Table) Changes() Changes {
	c := Changes{OldNode: t.oldNode, NodeAddrs: t.nodeAddrs}
	for name := range t.dirty {
		c.Ports = append(c.Ports, t.refresh(name)...)
	}
	clear(t.dirty)
	t.oldNode = t.nodeAddrs
	slices.SortFunc(c.Ports, func(a, b Change) int { return a.Key().Compare(b.Key()) })
	return c
}

// All returns the whole desired state as Changes from nothing, as of the last call of Changes.
func (t *Table) All() Changes {
	c := Changes{NodeAddrs: t.oldNode}
	for _, p := range t.ports {
		c.Ports = append(c.Ports, Change{New: p})
	}
	slices.SortFunc(c.Ports, func(a, b Change) int { return a.Key().Compare(b.Key()) })
	return c
}

// refresh derives the ports of one Service again and returns those that differ.
func (t *Table) refresh(name Name) (changes []Change) {
	before := t.keys[name]
	var after []Key
	if s := t.services[name]; s != nil {
		for key, frontends := range wishes(s) {
			after = append(after, key)
			p := t.derive(key, frontends)
			old := t.ports[key]
			if old == nil || !old.equal(p) {
				changes = append(changes, Change{Old: old, New: p})
				t.ports[key] = p
			}
		}
	}
	for _, key := range before {
		if !slices.Contains(after, key) {
			changes = append(changes, Change{Old: t.ports[key]})
			delete(t.ports, key)
		}
	}
	t.keys[name] = after
	if len(after) == 0 {
		delete(t.keys, name)
	}
	return changes
}

// derive builds the Port of a key from its wishes, the claims of all Services, and its slices.
func (t *Table) derive(key Key, frontends []Frontend) *Port {
	p := &Port{Key: key, Backends: backends(key, t.slices[key.Service], t.node)}
	for _, f := range frontends {
		if w, ok := t.claims.winner(placeOf(key, f)); ok && w.key != key {
			p.Lost = append(p.Lost, Loss{Frontend: f, Winner: w.key})
			continue
		}
		p.Frontends = append(p.Frontends, f)
	}
	return p
}

// touch marks the Services of ports to be looked at in the next Changes.
func (t *Table) touch(keys []Key) {
	for _, k := range keys {
		t.dirty[k.Service] = true
	}
}

// claim enters the claims of a Service; the Services that lose by it are to be looked at.
func (t *Table) claim(s *Service) {
	for key, frontends := range wishes(s) {
		for _, f := range frontends {
			p, c := placeOf(key, f), claim{key: key, kind: f.Kind, created: s.Created.Unix()}
			if slices.Contains(t.claims[p], c) {
				continue
			}
			t.touch(t.claims.add(p, c))
		}
	}
}

// unclaim takes back the claims of old that its successor does not have; the Services that win by it are to be looked
// at. A nil successor has none.
func (t *Table) unclaim(old, successor *Service) {
	type kept struct {
		place place
		claim claim
	}
	keeps := map[kept]bool{}
	if successor != nil {
		for key, frontends := range wishes(successor) {
			for _, f := range frontends {
				keeps[kept{placeOf(key, f), claim{key: key, kind: f.Kind, created: successor.Created.Unix()}}] = true
			}
		}
	}
	for key, frontends := range wishes(old) {
		for _, f := range frontends {
			p, c := placeOf(key, f), claim{key: key, kind: f.Kind, created: old.Created.Unix()}
			if keeps[kept{p, c}] {
				continue
			}
			t.touch(t.claims.remove(p, c))
		}
	}
}
