package service

import (
	"iter"
	"slices"
)

// SetService adds a Service or replaces the one of that name.
func (t *Table) SetService(s *Service) {
	e := t.entry(s.Name)
	old := e.service
	if old != nil && old.equal(s) {
		return
	}
	e.service = s
	t.touch(e)
	for p, c := range claimsOf(e, s) {
		t.touchAll(t.claims.add(p, c))
	}
	t.unclaim(e, old, s)
}

// DeleteService removes a Service; one that is not there is not an error.
func (t *Table) DeleteService(n Name) {
	e := t.entries[n]
	if e == nil || e.service == nil {
		return
	}
	old := e.service
	e.service = nil
	t.touch(e)
	t.unclaim(e, old, nil)
}

// ReplaceServices makes the table hold exactly these Services.
func (t *Table) ReplaceServices(all iter.Seq[*Service]) {
	kept := make(map[Name]bool, len(t.entries))
	for s := range all {
		kept[s.Name] = true
	}
	for n, e := range t.entries {
		if e.service != nil && !kept[n] {
			t.DeleteService(n)
		}
	}
	for s := range all {
		t.SetService(s)
	}
}

// SetSlice adds a Slice or replaces the one of that name, which may have belonged to another Service.
func (t *Table) SetSlice(s *Slice) {
	s = s.sorted()
	e := t.entry(s.Service)
	if owner := t.owners[s.Name]; owner != nil && owner != e {
		t.DeleteSlice(s.Name)
	}
	t.owners[s.Name] = e
	i, there := slices.BinarySearchFunc(e.slices, s.Name, compareSlice)
	switch {
	case !there:
		e.slices = slices.Insert(slices.Clip(e.slices), i, s)
	case e.slices[i].equal(s):
		return
	default:
		e.slices[i] = s
	}
	t.touch(e)
	if !s.Triggered.IsZero() && t.triggered < maxTriggers {
		t.triggers[e.name] = append(t.triggers[e.name], s.Triggered)
		t.triggered++
	}
}

// DeleteSlice removes a Slice; one that is not there is not an error.
func (t *Table) DeleteSlice(n Name) {
	e := t.owners[n]
	if e == nil {
		return
	}
	delete(t.owners, n)
	if i, there := slices.BinarySearchFunc(e.slices, n, compareSlice); there {
		e.slices = slices.Delete(e.slices, i, i+1)
	}
	// As upstream: what is left of the Service is not what the triggers were about.
	t.triggered -= len(t.triggers[e.name])
	delete(t.triggers, e.name)
	t.touch(e)
}

// ReplaceSlices makes the table hold exactly these Slices.
func (t *Table) ReplaceSlices(all iter.Seq[*Slice]) {
	kept := make(map[Name]bool, len(t.owners))
	for s := range all {
		kept[s.Name] = true
	}
	for n := range t.owners {
		if !kept[n] {
			t.DeleteSlice(n)
		}
	}
	for s := range all {
		t.SetSlice(s)
	}
}

func compareSlice(s *Slice, n Name) int { return s.Name.Compare(n) }

// claimsOf returns what a Service claims.
func claimsOf(e *entry, s *Service) iter.Seq2[place, claim] {
	return func(yield func(place, claim) bool) {
		for _, w := range wishes(s) {
			for _, f := range w.frontends {
				if !yield(place{f.Addr, w.key.Protocol}, claimOf(e, s, w.key, f.Kind)) {
					return
				}
			}
		}
	}
}

// unclaim takes back the claims of old that its successor does not have; the Services that win by it are to be looked
// at. A nil successor has none.
func (t *Table) unclaim(e *entry, old, successor *Service) {
	if old == nil {
		return
	}
	type kept struct {
		place place
		claim claim
	}
	keeps := map[kept]bool{}
	if successor != nil {
		for p, c := range claimsOf(e, successor) {
			keeps[kept{p, c}] = true
		}
	}
	for p, c := range claimsOf(e, old) {
		if !keeps[kept{p, c}] {
			t.touchAll(t.claims.remove(p, c))
		}
	}
}

func (t *Table) touchAll(cs []claim) {
	for _, c := range cs {
		t.touch(c.of)
	}
}
