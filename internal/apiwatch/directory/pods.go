package directory

import (
	"sync"
	"sync/atomic"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// pods keeps pods, and which Services have endpoints that refer to them.
type pods struct {
	versions *atomic.Uint64 // the last one that was given

	mu     sync.RWMutex
	byName map[service.Name]*podEntry
	there  int // entries that are pods
}

// podEntry is a pod, or a name that endpoints refer to but no pod has: then the namespace of its Name is empty. Only refs
// changes. Its 144 bytes are a size of Go's allocator; one field more costs 16 bytes for each pod.
type podEntry struct {
	Pod
	refs *ref // guarded by pods.mu
}

// ref says that slices of a Service have endpoints that are the pod; others follow.
type ref struct {
	owner *owner
	times int // endpoints; a slice of each family has one
	next  *ref
}

func newPods(versions *atomic.Uint64) *pods {
	return &pods{versions: versions, byName: map[service.Name]*podEntry{}}
}

// isPod tells whether there is such a pod.
func (e *podEntry) isPod() bool { return e != nil && e.Name.Namespace != "" }

// get returns a pod, nil if it is not known.
func (p *pods) get(name service.Name) *Pod {
	if e := p.entry(name); e.isPod() {
		return &e.Pod
	}
	return nil
}

func (p *pods) entry(name service.Name) *podEntry {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.byName[name]
}

// known returns the entry that is in use already if it says the same: of a list of all pods, most do.
func (p *pods) known(e *podEntry) *podEntry {
	if old := p.entry(e.Name); old.isPod() && old.Pod.equal(&e.Pod) {
		return old
	}
	return e
}

// set adds or changes a pod. The entry is its own from now on.
func (p *pods) set(e *podEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.byName[e.Name]
	if old == e || old.isPod() && old.Pod.equal(&e.Pod) {
		return
	}
	if !old.isPod() {
		p.there++
	}
	if old != nil {
		e.Name.Name = old.Name.Name // the same text in less memory: endpoints use it too
		e.refs = old.refs
	}
	p.byName[e.Name] = e
	p.tell(e)
}

// del removes a pod, if there is one.
func (p *pods) del(name service.Name) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.byName[name]
	if !old.isPod() {
		return
	}
	p.there--
	if old.refs == nil {
		delete(p.byName, name)
		return
	}
	p.byName[service.Name{Namespace: name.Namespace, Name: old.Name.Name}] = &podEntry{Pod: Pod{Name: service.Name{Name: old.Name.Name}}, refs: old.refs}
	p.tell(old)
}

// tell gives new versions to the Services that a pod is behind. What is new must be there to be read by then.
func (p *pods) tell(e *podEntry) {
	for r := e.refs; r != nil; r = r.next {
		r.owner.changed(p.versions)
	}
}

// replace makes these all pods that there are. It does so one by one, so that no reader waits for long.
func (p *pods) replace(all []feed.Item[*podEntry]) {
	for _, i := range all {
		p.set(i.Value)
	}
	p.mu.RLock()
	gone := others(p.byName, p.there, (*podEntry).isPod, all)
	p.mu.RUnlock()
	for _, name := range gone {
		p.del(name)
	}
}

// others returns what is in a map and not among these, which all are. Of the map only what is there counts, which is as much
// as there says.
func others[K, V any](known map[service.Name]K, there int, isThere func(K) bool, these []feed.Item[V]) (out []service.Name) {
	if there == len(these) {
		return nil
	}
	keep := feed.Names(these)
	for name, k := range known {
		if _, ok := keep[name]; !ok && isThere(k) {
			out = append(out, name)
		}
	}
	return out
}

// refer notes the pods of a slice that nobody reads yet, and lets it use the memory of their names.
func (p *pods) refer(s *Slice, owner *owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range s.Endpoints {
		name := &s.Endpoints[i].Pod
		if name.Name == "" {
			continue
		}
		e := p.byName[*name]
		if e == nil {
			e = &podEntry{Pod: Pod{Name: service.Name{Name: name.Name}}}
			p.byName[*name] = e
		}
		name.Name = e.Name.Name
		e.refer(owner)
	}
}

// release takes back what refer noted.
func (p *pods) release(s *Slice, owner *owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range s.Endpoints {
		name := s.Endpoints[i].Pod
		e := p.byName[name]
		if e == nil {
			continue
		}
		e.release(owner)
		if e.refs == nil && !e.isPod() {
			delete(p.byName, name)
		}
	}
}

func (e *podEntry) refer(owner *owner) {
	for r := e.refs; r != nil; r = r.next {
		if r.owner == owner {
			r.times++
			return
		}
	}
	e.refs = &ref{owner: owner, times: 1, next: e.refs}
}

func (e *podEntry) release(owner *owner) {
	for at := &e.refs; *at != nil; at = &(*at).next {
		if r := *at; r.owner == owner {
			if r.times--; r.times == 0 {
				*at = r.next
			}
			return
		}
	}
}
