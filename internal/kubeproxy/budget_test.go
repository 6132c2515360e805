package kubeproxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// tally is a kernel that counts what is committed, and takes anything.
type tally struct{ commits, elements int }

func (k *tally) Read(context.Context) (nft.Content, error) { return nft.Content{}, nil }

func (k *tally) Commit(_ context.Context, tx nft.Transaction) error {
	k.commits++
	k.elements += len(tx.Delete) + len(tx.Add)
	return nil
}

// TestBudgetOfChange changes one of a thousand Services a hundred times, from the table to the kernel. The figures are
// those of the code as it is, with room for a third more: who needs more should know why.
func TestBudgetOfChange(t *testing.T) {
	const services, changes, maxElements, maxAllocations = 1000, 100, 2, 80
	synctest.Test(t, func(t *testing.T) {
		table, kernel, start := service.NewTable("node-1"), &tally{}, make(chan struct{})
		close(start)
		loop := reconcile.New(reconcile.Config{Table: table, Plane: nft.New(kernel), Start: start, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- loop.Run(ctx) }()
		loop.Update(func(table *service.Table) {
			for i := range services {
				table.SetService(numbered(i))
				table.SetSlice(numberedSlice(i, 0))
			}
		})
		time.Sleep(reconcile.DefaultMaxWait) // on the bubble's clock
		synctest.Wait()
		*kernel = tally{}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range changes {
			loop.Update(func(table *service.Table) { table.SetSlice(numberedSlice(500, i+1)) })
			time.Sleep(reconcile.DefaultMaxWait) // on the bubble's clock
		}
		synctest.Wait()
		runtime.ReadMemStats(&after)
		allocations := int(after.Mallocs-before.Mallocs) / changes
		t.Logf("for each change: %d commits, %d elements, %d allocations", kernel.commits/changes, kernel.elements/changes, allocations)
		if kernel.commits != changes || kernel.elements > changes*maxElements || allocations > maxAllocations {
			t.Errorf("%d commits, %d elements, %d allocations for each of %d changes; the budget is 1, %d and %d",
				kernel.commits, kernel.elements, allocations, changes, maxElements, maxAllocations)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func numbered(i int) *service.Service {
	return &service.Service{
		Name:       service.Name{Namespace: "x", Name: fmt.Sprint(i)},
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
		Ports:      []service.ServicePort{{Protocol: service.TCP, Port: 80}},
	}
}

// numberedSlice has two endpoints, of which the second is another one in each version.
func numberedSlice(i, version int) *service.Slice {
	name := service.Name{Namespace: "x", Name: fmt.Sprint(i)}
	s := &service.Slice{Name: name, Service: name, Ports: []service.SlicePort{{Protocol: service.TCP, Port: 8080}}}
	for _, last := range []int{1, 2 + version%100} {
		s.Endpoints = append(s.Endpoints, service.Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(100 + i>>8), byte(i), byte(last)}), Ready: true, Serving: true})
	}
	return s
}
