package directory

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

// model is what a directory should know, kept in the simplest way.
type model struct {
	services map[service.Name]Service
	slices   map[service.Name]Slice
	pods     map[service.Name]Pod
}

// view is all that a Service is computed from. It is the same for as long as Version is.
func (m *model) view(name service.Name) string {
	s, ok := m.services[name]
	if !ok {
		return ""
	}
	out := fmt.Sprint(s)
	for _, n := range slices.SortedFunc(maps.Keys(m.slices), service.Name.Compare) {
		if sl := m.slices[n]; sl.Service == name {
			out += fmt.Sprint(sl)
			for _, e := range sl.Endpoints {
				out += fmt.Sprint(m.pods[e.Pod])
			}
		}
	}
	return out
}

func pick(r *rand.Rand, what string, n int) service.Name {
	return service.Name{Namespace: "x", Name: fmt.Sprint(what, "-", r.IntN(n))}
}

func randomSlice(r *rand.Rand) Slice {
	s := Slice{Name: pick(r, "slice", 6), Service: pick(r, "service", 3), Endpoints: []Endpoint{}}
	for range r.IntN(4) {
		e := Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(3))})}
		if r.IntN(4) > 0 {
			e.Pod = pick(r, "pod", 4)
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func randomPod(r *rand.Rand) Pod {
	return Pod{Name: pick(r, "pod", 4), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(3))})}}
}

func fresh(s Slice) *Slice {
	s.Endpoints = slices.Clone(s.Endpoints)
	return &s
}

// step does the same to a directory and to the model.
func step(r *rand.Rand, d *Directory, m *model) {
	switch r.IntN(9) {
	case 0:
		s := Service{Name: pick(r, "service", 3), ExternalName: r.IntN(2) > 0}
		m.services[s.Name] = s
		d.services.setService(&s)
	case 1:
		n := pick(r, "service", 3)
		delete(m.services, n)
		d.services.delService(n)
	case 2, 3:
		s := randomSlice(r)
		m.slices[s.Name] = s
		d.services.setSlice(fresh(s))
	case 4:
		n := pick(r, "slice", 6)
		delete(m.slices, n)
		d.services.delSlice(n)
	case 5, 6:
		p := randomPod(r)
		m.pods[p.Name] = p
		d.pods.set(&podEntry{Pod: p})
	case 7:
		n := pick(r, "pod", 4)
		delete(m.pods, n)
		d.pods.del(n)
	case 8:
		relist(r, d, m)
	}
}

// relist hands on a whole list of one kind, in which some are gone.
func relist(r *rand.Rand, d *Directory, m *model) {
	switch r.IntN(3) {
	case 0:
		maps.DeleteFunc(m.services, func(service.Name, Service) bool { return r.IntN(4) == 0 })
		d.services.replaceServices(items(m.services, func(s Service) *Service { return &s }))
	case 1:
		maps.DeleteFunc(m.slices, func(service.Name, Slice) bool { return r.IntN(4) == 0 })
		d.services.replaceSlices(items(m.slices, fresh))
	case 2:
		maps.DeleteFunc(m.pods, func(service.Name, Pod) bool { return r.IntN(4) == 0 })
		d.pods.replace(items(m.pods, func(p Pod) *podEntry { return d.pods.known(&podEntry{Pod: p}) }))
	}
}

func items[S, V any](all map[service.Name]S, value func(S) V) (out []feed.Item[V]) {
	for n, s := range all {
		out = append(out, feed.Item[V]{Name: n, Value: value(s)})
	}
	return out
}

// TestModel does things at random, and compares what can be read with the model after each.
func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := New(Config{})
		d.podsListed.Store(true)
		m := &model{map[service.Name]Service{}, map[service.Name]Slice{}, map[service.Name]Pod{}}
		views, versions := map[service.Name]string{}, map[service.Name]uint64{}
		given := map[uint64]string{}
		for i := range 200 {
			step(r, d, m)
			for n := range 3 {
				name := service.Name{Namespace: "x", Name: fmt.Sprint("service-", n)}
				view, version := m.view(name), d.Version(name)
				if (view == "") != (version == 0) || view != views[name] && version == versions[name] {
					t.Fatalf("seed %d, step %d: %s has version %d, had %d; it is\n%s, was\n%s", seed, i, name, version, versions[name], view, views[name])
				}
				if was, ok := given[version]; ok && version != 0 && was != name.Name+view {
					t.Fatalf("seed %d, step %d: version %d is used again", seed, i, version)
				}
				given[version] = name.Name + view
				views[name], versions[name] = view, version
			}
		}
		compare(t, d, m)
		empty(t, d, m)
	}
}

func compare(t *testing.T, d *Directory, m *model) {
	t.Helper()
	got := &model{map[service.Name]Service{}, map[service.Name]Slice{}, map[service.Name]Pod{}}
	for n := range 6 {
		name := service.Name{Namespace: "x", Name: fmt.Sprint("service-", n)}
		if s := d.services.get(name); s != nil {
			got.services[name] = *s
		}
		for _, s := range d.Slices(name) {
			got.slices[s.Name] = *s
		}
		if p := d.pods.get(named(n)); p != nil {
			got.pods[named(n)] = *p
		}
	}
	if diff := cmp.Diff(m, got, cmp.AllowUnexported(model{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

// empty removes all: nothing must be left behind.
func empty(t *testing.T, d *Directory, m *model) {
	t.Helper()
	for n := range m.services {
		d.services.delService(n)
	}
	for n := range m.pods {
		d.pods.del(n)
	}
	for n := range m.slices {
		d.services.delSlice(n)
	}
	if n := len(d.services.owners) + len(d.services.slices) + len(d.pods.byName) + d.pods.there + d.services.there; n != 0 {
		t.Fatalf("left behind: %v %v %v", d.services.owners, d.services.slices, d.pods.byName)
	}
}

// TestReadWhileChanged reads while all changes. What a Version stands for is the same before and after it was read twice.
func TestReadWhileChanged(t *testing.T) {
	d := New(Config{})
	d.podsListed.Store(true)
	close(d.synced)
	m := &model{map[service.Name]Service{}, map[service.Name]Slice{}, map[service.Name]Pod{}}
	end := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			cache := map[uint64]string{}
			for {
				select {
				case <-end:
					return
				default:
				}
				for n := range 3 {
					readTwice(t, d, cache, service.Name{Namespace: "x", Name: fmt.Sprint("service-", n)})
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		step(r, d, m)
	}
	close(end)
	readers.Wait()
	compare(t, d, m)
}

// readTwice computes as a caller does: the version first. If it is the same after, the result holds for that version.
func readTwice(t *testing.T, d *Directory, cache map[uint64]string, name service.Name) {
	version := d.Version(name)
	got := fmt.Sprint(d.services.get(name))
	for _, s := range d.Slices(name) {
		got += fmt.Sprint(*s)
		for _, e := range s.Endpoints {
			if p := d.pods.get(e.Pod); p != nil {
				got += fmt.Sprint(*p)
			}
		}
	}
	if version == 0 || d.Version(name) != version {
		return
	}
	if was, ok := cache[version]; ok && was != got {
		t.Errorf("version %d stands for\n%s and\n%s", version, was, got)
	}
	cache[version] = got
}
