package directory

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// isAPIServers tells whether a Service is the one that the API servers are behind.
func isAPIServers(name service.Name) bool {
	return name == service.Name{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}
}

// services keeps Services and their EndpointSlices. Its lock is taken before that of pods.
type services struct {
	versions   *atomic.Uint64 // the last one that was given
	pods       *pods
	apiServers atomic.Pointer[[]netip.AddrPort]

	mu     sync.RWMutex
	owners map[service.Name]*owner
	slices map[service.Name]*Slice // by their own names
	there  int                     // owners that are Services
}

// owner is a Service, or a name that slices have but no Service has: then service is nil.
type owner struct {
	service *Service
	slices  []*Slice // sorted by name; replaced, never changed
	version atomic.Uint64
}

// changed gives the owner a new version. What is new must be there to be read by then. It is safe without a lock.
func (o *owner) changed(versions *atomic.Uint64) { o.version.Store(versions.Add(1)) }

func newServices(versions *atomic.Uint64, pods *pods) *services {
	s := &services{versions: versions, pods: pods, owners: map[service.Name]*owner{}, slices: map[service.Name]*Slice{}}
	s.apiServers.Store(&[]netip.AddrPort{})
	return s
}

func (s *services) get(name service.Name) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o := s.owners[name]; o != nil {
		return o.service
	}
	return nil
}

func (s *services) slicesOf(name service.Name) []*Slice {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o := s.owners[name]; o != nil {
		return o.slices
	}
	return nil
}

func (s *services) version(name service.Name) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o := s.owners[name]; o != nil && o.service != nil {
		return o.version.Load()
	}
	return 0
}

// named returns the owner of that name, a new one if there is none. The lock is held.
func (s *services) named(name service.Name) *owner {
	o := s.owners[name]
	if o == nil {
		o = &owner{}
		s.owners[name] = o
	}
	return o
}

// tidy forgets an owner that nothing is left of. The lock is held.
func (s *services) tidy(name service.Name, o *owner) {
	if o.service == nil && len(o.slices) == 0 {
		delete(s.owners, name)
	}
}

func (s *services) setService(v *Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.named(v.Name)
	if o.service != nil && o.service.equal(v) {
		return
	}
	if o.service == nil {
		s.there++
	}
	o.service = v
	s.noteAPIServers(v.Name, o)
	o.changed(s.versions)
}

func (s *services) delService(name service.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.owners[name]
	if o == nil || o.service == nil {
		return
	}
	s.there--
	o.service = nil
	s.noteAPIServers(name, o)
	o.changed(s.versions)
	s.tidy(name, o)
}

func (s *services) replaceServices(all []feed.Item[*Service]) {
	for _, i := range all {
		s.setService(i.Value)
	}
	s.mu.RLock()
	gone := others(s.owners, s.there, func(o *owner) bool { return o.service != nil }, all)
	s.mu.RUnlock()
	for _, name := range gone {
		s.delService(name)
	}
}

// knownSlice returns the slice that is in use already if it says the same.
func (s *services) knownSlice(v *Slice) *Slice {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if old := s.slices[v.Name]; old != nil && old.equal(v) {
		return old
	}
	return v
}

// setSlice adds or changes a slice, which may have belonged to another Service. Its pods are noted before it can be read:
// a change of one in between would not be told.
func (s *services) setSlice(v *Slice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.slices[v.Name]
	if old == v || old != nil && old.equal(v) {
		return
	}
	to := s.named(v.Service)
	s.pods.refer(v, to)
	s.slices[v.Name] = v
	if old != nil && old.Service != v.Service {
		s.leave(old)
	} else if old != nil {
		s.pods.release(old, to)
	}
	s.give(v.Service, to, with(to.slices, v))
}

func (s *services) delSlice(name service.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.slices[name]; old != nil {
		delete(s.slices, name)
		s.leave(old)
	}
}

// leave takes a slice from its Service. The lock is held.
func (s *services) leave(old *Slice) {
	from := s.owners[old.Service]
	s.give(old.Service, from, without(from.slices, old.Name))
	s.pods.release(old, from)
	s.tidy(old.Service, from)
}

// give lets an owner have these slices. The lock is held.
func (s *services) give(name service.Name, o *owner, slices []*Slice) {
	o.slices = slices
	s.noteAPIServers(name, o)
	o.changed(s.versions)
}

// noteAPIServers has APIServers say what is known of that Service, if it is the one. The lock is held.
func (s *services) noteAPIServers(name service.Name, o *owner) {
	if isAPIServers(name) {
		found := addrPorts(o)
		s.apiServers.Store(&found)
	}
}

func (s *services) replaceSlices(all []feed.Item[*Slice]) {
	for _, i := range all {
		s.setSlice(i.Value)
	}
	s.mu.RLock()
	gone := others(s.slices, len(s.slices), func(*Slice) bool { return true }, all)
	s.mu.RUnlock()
	for _, name := range gone {
		s.delSlice(name)
	}
}

// with returns a new list that has the slice, in its place.
func with(list []*Slice, v *Slice) []*Slice {
	at, found := position(list, v.Name)
	out := make([]*Slice, 0, len(list)+1)
	out = append(append(out, list[:at]...), v)
	if found {
		at++
	}
	return append(out, list[at:]...)
}

// without returns a new list that does not have the slice, nil if nothing is left.
func without(list []*Slice, name service.Name) []*Slice {
	at, found := position(list, name)
	switch {
	case !found:
		return list
	case len(list) == 1:
		return nil
	}
	return slices.Concat(list[:at], list[at+1:])
}

func position(list []*Slice, name service.Name) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(s *Slice, name service.Name) int { return s.Name.Compare(name) })
}

// addrPorts returns all endpoints of an owner's slices on all their ports, and its Service's addresses on all of its.
func addrPorts(o *owner) []netip.AddrPort {
	out := []netip.AddrPort{}
	for _, s := range o.slices {
		for _, p := range s.Ports {
			for _, e := range s.Endpoints {
				out = append(out, netip.AddrPortFrom(e.Addr, p.Number))
			}
		}
	}
	if s := o.service; s != nil {
		for _, p := range s.Ports {
			for _, a := range s.ClusterIPs {
				out = append(out, netip.AddrPortFrom(a, p.Number))
			}
		}
	}
	slices.SortFunc(out, func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
	return slices.Compact(out)
}
