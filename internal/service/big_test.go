package service_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"varco.dev/internal/service"
)

// bigService is a Service x/a with many slices of many endpoints each.
func bigService(table *service.Table, slices, endpoints int) (last *service.Slice) {
	table.SetService(svc("a", 1, "10.0.0.1"))
	for i := range slices {
		last = slice(fmt.Sprintf("a-%03d", i), "a", "")
		for j := range endpoints {
			n := (i*endpoints + j) * 7919 % (slices * endpoints) // not in order
			last.Endpoints = append(last.Endpoints, service.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, 128 + byte(n>>16), byte(n >> 8), byte(n)}), Node: "node-2", Ready: true, Serving: true,
			})
		}
		table.SetSlice(last)
	}
	return last
}

// TestBigService has as many endpoints as a Service of 100 full slices: a change of one of them is still a change of a
// moment.
func TestBigService(t *testing.T) {
	table := service.NewTable("node-1")
	last := bigService(table, 100, 1000)
	start := time.Now()
	c := table.Changes()
	first := time.Since(start)
	if len(c.Ports) != 1 || len(c.Ports[0].New.Cluster) != 100_000 {
		t.Fatalf("got %d ports", len(c.Ports))
	}
	less := *last
	less.Endpoints = less.Endpoints[1:]
	table.SetSlice(&less)
	start = time.Now()
	c = table.Changes()
	again := time.Since(start)
	if len(c.Ports) != 1 || len(c.Ports[0].New.Cluster) != 99_999 {
		t.Fatalf("got %d ports", len(c.Ports))
	}
	t.Logf("100,000 endpoints took %v, one less %v", first, again)
	if again > time.Second { // it takes some hundredths of one
		t.Errorf("a change took %v", again)
	}
}

func BenchmarkBigService(b *testing.B) {
	table := service.NewTable("node-1")
	last := bigService(table, 100, 1000)
	table.Changes()
	less := *last
	less.Endpoints = less.Endpoints[1:]
	for b.Loop() {
		table.SetSlice(&less)
		table.Changes()
		table.SetSlice(last)
		table.Changes()
	}
}

// TestManyAddresses has two Services ask for as many external IPs as an object has room for: all others wait meanwhile.
func TestManyAddresses(t *testing.T) {
	const many = 40_000
	addrs := make([]netip.Addr, many)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	}
	table := service.NewTable("node-1")
	start := time.Now()
	for i, name := range []string{"a", "b"} {
		s := svc(name, int64(i)+1, fmt.Sprintf("10.0.0.%d", i+1))
		s.LoadBalancerIPs, s.ExternalIPs = addrs[:2], addrs
		table.SetService(s)
	}
	c := table.Changes()
	took := time.Since(start)
	if len(c.Ports) != 2 || len(c.Ports[0].New.Frontends) != many+1 || len(c.Ports[1].New.Lost) != many || len(c.Ports[1].New.Frontends) != 1 {
		t.Fatalf("got %d ports", len(c.Ports))
	}
	if took > time.Second { // it takes some hundredths of one
		t.Errorf("it took %v", took)
	}
}
