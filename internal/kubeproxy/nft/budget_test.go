package nft_test

import (
	"context"
	"runtime"
	"slices"
	"testing"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/service"
)

// last keeps the last transaction.
type last struct{ tx nft.Transaction }

func (l *last) Commit(_ context.Context, tx nft.Transaction) error {
	l.tx = tx
	return nil
}

func (*last) Read(context.Context) (nft.Content, error) { return nft.Content{}, nil }

// TestOperationsPerChange says how many elements a change costs, among 1000 Services and with 1000 backends each of which
// could be the one that changes.
func TestOperationsPerChange(t *testing.T) {
	with := func(p *service.Port, b ...service.Backend) *service.Port {
		q := *p
		q.Cluster = b
		return &q
	}
	big := port(service.IPv4, 0, 1000)
	fresh := service.Backend{Addr: port(service.IPv4, 5000, 1).Cluster[0].Addr}
	for _, c := range []struct {
		name         string
		to           *service.Port
		deletes, max int // of elements: endpoints, and one for each of the two frontends
		classes      int
	}{
		{"one backend more", with(big, slices.Concat(big.Cluster[:0:0], big.Cluster, []service.Backend{fresh})...), 2, 3, 2},
		{"one backend less, the first", with(big, big.Cluster[1:]...), 2 + 2 + 1, 3, 2}, // the last moves; it was local: its hairpin goes
		{"one backend for another", with(big, slices.Concat(big.Cluster[:500:500], []service.Backend{fresh}, big.Cluster[501:])...), 1, 1, 0},
		{"the same again", with(big, big.Cluster...), 0, 0, 0},
		{"the Service gone", nil, 2 + 1000 + 1 + 1, 0, 0}, // and its ClusterIP is no address of a Service any more
	} {
		t.Run(c.name, func(t *testing.T) {
			kernel := &last{}
			plane := nft.New(kernel)
			all := service.Changes{Ports: []service.Change{{New: big}}}
			for i := range 999 {
				all.Ports = append(all.Ports, service.Change{New: port(service.IPv4, 10000+i, 2)})
			}
			if err := plane.Replace(t.Context(), all); err != nil {
				t.Fatal(err)
			}
			kernel.tx = nft.Transaction{}
			if err := plane.Update(t.Context(), service.Changes{Ports: []service.Change{{Old: big, New: c.to}}}); err != nil {
				t.Fatal(err)
			}
			if d, a, n := len(kernel.tx.Delete), len(kernel.tx.Add), len(kernel.tx.Classes); d > c.deletes || a > c.max || n > c.classes {
				t.Errorf("deletes %d, adds %d elements and %d classes; the budget is %d, %d and %d", d, a, n, c.deletes, c.max, c.classes)
			}
		})
	}
}

// TestSharedElementOutlivesOneOwner has two Services with the same local backend: its hairpin element is there until the
// last of them is gone, in whatever order it was asked for.
func TestSharedElementOutlivesOneOwner(t *testing.T) {
	backend := port(service.IPv4, 1, 1).Cluster[0]
	remote := service.Backend{Addr: backend.Addr}
	shared := func(i int, b service.Backend) *service.Port {
		p := port(service.IPv4, i, 0)
		p.Cluster = []service.Backend{b}
		return p
	}
	kernel := &last{}
	plane := nft.New(kernel)
	a, b := shared(1, remote), shared(2, backend)
	hairpins := func() (deleted int) {
		for _, e := range kernel.tx.Delete {
			if e.Set == nft.Hairpins {
				deleted++
			}
		}
		return deleted
	}
	if err := plane.Replace(t.Context(), service.Changes{Ports: []service.Change{{New: a}, {New: b}}}); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		change  service.Change
		deleted int
	}{
		{service.Change{Old: a, New: shared(1, backend)}, 0}, // nothing for the kernel to do: the element is there
		{service.Change{Old: b}, 0},
		{service.Change{Old: shared(1, backend)}, 1},
	} {
		if err := plane.Update(t.Context(), service.Changes{Ports: []service.Change{step.change}}); err != nil {
			t.Fatal(err)
		}
		if got := hairpins(); got != step.deleted {
			t.Errorf("step %d: %d hairpin elements deleted, want %d", i, got, step.deleted)
		}
	}
}

// TestMemory says how much memory a data plane keeps for each Service, beside what the kernel has: not its elements, which
// follow from the Port.
func TestMemory(t *testing.T) {
	const n, budget = 10000, 400 // bytes for each
	all := service.Changes{}
	for i := range n {
		all.Ports = append(all.Ports, service.Change{New: port(service.IPv4, i, 2)})
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	kernel := &last{}
	before, plane := heap(), nft.New(kernel)
	if err := plane.Replace(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	kernel.tx = nft.Transaction{}
	each := (int64(heap()) - int64(before)) / n
	t.Logf("%d bytes for each Service", each)
	if each > budget {
		t.Errorf("%d bytes for each Service, the budget is %d", each, budget)
	}
	runtime.KeepAlive(plane)
	runtime.KeepAlive(all)
}

// TestAllocationsPerChange says how many allocations a change of one backend costs, whatever the number of the others.
func TestAllocationsPerChange(t *testing.T) {
	for _, c := range []struct{ backends, budget int }{{2, 70}, {1000, 80}} { // the race detector adds some
		plane := nft.New(&last{})
		from := port(service.IPv4, 0, c.backends)
		to := *from
		to.Cluster = append(slices.Clone(from.Cluster[1:]), port(service.IPv4, 5000, 1).Cluster...)
		if err := plane.Replace(t.Context(), service.Changes{Ports: []service.Change{{New: from}}}); err != nil {
			t.Fatal(err)
		}
		old, new := from, &to
		got := testing.AllocsPerRun(100, func() {
			if err := plane.Update(t.Context(), service.Changes{Ports: []service.Change{{Old: old, New: new}}}); err != nil {
				t.Fatal(err)
			}
			old, new = new, old
		})
		t.Logf("%d backends: %.0f allocations", c.backends, got)
		if int(got) > c.budget {
			t.Errorf("%d backends: %.0f allocations, the budget is %d", c.backends, got, c.budget)
		}
	}
}
