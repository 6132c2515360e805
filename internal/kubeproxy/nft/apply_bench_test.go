package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// many returns n Services with a ClusterIP and two backends each.
func many(n int) service.Changes {
	all := service.Changes{NodeAddrs: []netip.Addr{netip.MustParseAddr("10.240.0.11")}}
	for i := range n {
		p := port(service.IPv4, i, 2)
		p.Frontends = p.Frontends[:1]
		p.HasEndpoints = true
		all.Ports = append(all.Ports, service.Change{New: p})
	}
	return all
}

// benchNamespace is namespace, for benchmarks.
func benchNamespace(b *testing.B) *nettest.Namespace {
	b.Helper()
	nettest.NeedRoot(b)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ns.Close() })
	return ns
}

// BenchmarkUpdate exchanges one of two backends of a Service, among others.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1000, 10000, 30000} {
		for _, watched := range []bool{false, true} {
			b.Run(fmt.Sprintf("services=%d/watched=%t", n, watched), func(b *testing.B) {
				kernel := nft.NewNetlink(config(benchNamespace(b)))
				defer kernel.Close()
				plane, all := nft.New(kernel), many(n)
				if err := plane.Replace(b.Context(), all); err != nil {
					b.Fatal(err)
				}
				if watched {
					ctx, cancel := context.WithCancel(b.Context())
					ended := make(chan error)
					go func() { ended <- kernel.Watch(ctx, func(reason string) { b.Error(reason) }) }()
					defer func() { cancel(); <-ended }()
				}
				one := all.Ports[n/2].New
				other := *one
				other.Cluster = slices.Concat(one.Cluster[:1], port(service.IPv4, 40000, 1).Cluster)
				from, to := one, &other
				took := make([]time.Duration, 0, b.N)
				b.ReportAllocs()
				for b.Loop() {
					start := time.Now()
					if err := plane.Update(b.Context(), service.Changes{Ports: []service.Change{{Old: from, New: to}}}); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(start))
					from, to = to, from
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// BenchmarkReplace makes tables of many Services, and looks whether they are still right.
func BenchmarkReplace(b *testing.B) {
	for _, n := range []int{1000, 10000, 30000} {
		all := many(n)
		b.Run(fmt.Sprintf("services=%d/new", n), func(b *testing.B) {
			kernel := nft.NewNetlink(config(benchNamespace(b)))
			defer kernel.Close()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if err := kernel.Cleanup(b.Context()); err != nil {
					b.Fatal(err)
				}
				runtime.GC()
				b.StartTimer()
				if err := nft.New(kernel).Replace(b.Context(), all); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("services=%d/again", n), func(b *testing.B) {
			kernel := nft.NewNetlink(config(benchNamespace(b)))
			defer kernel.Close()
			plane := nft.New(kernel)
			if err := plane.Replace(b.Context(), all); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := plane.Replace(b.Context(), all); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
