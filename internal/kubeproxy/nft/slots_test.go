package nft_test

import (
	"fmt"
	"net/netip"
	"testing"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/service"
)

// pods returns n backends.
func pods(n int) (out []service.Backend) {
	for i := range n {
		out = append(out, service.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), 8080)})
	}
	return out
}

// shares returns how many slots each backend has.
func shares(slots []service.Backend) map[netip.AddrPort]int {
	out := map[netip.AddrPort]int{}
	for _, b := range slots {
		out[b.Addr]++
	}
	return out
}

func cluster(b service.Balance, backends []service.Backend) []service.Backend {
	return nft.SlotsOf(&service.Port{Balance: b, Cluster: backends}, nft.Slots{}).Cluster
}

// without returns backends but for number i.
func without(backends []service.Backend, i int) []service.Backend {
	return append(append([]service.Backend{}, backends[:i]...), backends[i+1:]...)
}

// TestMaglevDisruption takes one of N backends away and brings it back: of the slots of the others, few change hands, and
// the shares stay even.
func TestMaglevDisruption(t *testing.T) {
	for _, n := range []int{2, 3, 10, 100, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			all := pods(n)
			before, after := cluster(service.Maglev, all), cluster(service.Maglev, without(all, n/2))
			if len(before) != nft.MaglevSlots || len(after) != nft.MaglevSlots {
				t.Fatalf("got %d and %d slots", len(before), len(after))
			}
			moved := 0
			for i, b := range before {
				if b.Addr != all[n/2].Addr && b.Addr != after[i].Addr {
					moved++
				}
			}
			t.Logf("%.2f%% of the slots of others moved", 100*float64(moved)/nft.MaglevSlots)
			if moved > nft.MaglevSlots*2/100 {
				t.Errorf("%d slots of others moved", moved)
			}
			for addr, got := range shares(before) {
				if want := nft.MaglevSlots / n; got < want-want/20-1 || got > want+want/20+1 {
					t.Errorf("%s has %d slots, want about %d", addr, got, want)
				}
			}
		})
	}
}

func TestMaglevIsTheSameEverywhere(t *testing.T) {
	backends := pods(3)
	got := fmt.Sprint(cluster(service.Maglev, backends)[:8])
	history := nft.SlotsOf(&service.Port{Balance: service.Maglev, Cluster: backends}, nft.Slots{Cluster: pods(5)})
	if again := fmt.Sprint(history.Cluster[:8]); got != again {
		t.Errorf("got %s, and after another history %s", got, again)
	}
	// What another version of this program must compute too, on the nodes that have it.
	owners := ""
	for _, b := range cluster(service.Maglev, backends)[:16] {
		owners += fmt.Sprint(b.Addr.Addr().As4()[3])
	}
	if want := "1202022021021011"; owners != want {
		t.Errorf("the first slots belong to %s, want %s", owners, want)
	}
}

func TestWeights(t *testing.T) {
	weigh := func(weights ...uint16) []service.Backend {
		out := pods(len(weights))
		for i, w := range weights {
			out[i].Weight = w
		}
		return out
	}
	for _, c := range []struct {
		name    string
		weights []uint16
		want    []int // slots
	}{
		{"equal", []uint16{7, 7, 7}, []int{1, 1, 1}},
		{"small", []uint16{1, 2, 3}, []int{1, 2, 3}},
		{"common divisor", []uint16{10, 20, 40}, []int{1, 2, 4}},
		{"none is one", []uint16{0, 2}, []int{1, 2}},
		{"large", []uint16{65535, 1}, []int{4093, 1}},
		{"large and odd", []uint16{30011, 10007, 20011}, []int{2046, 682, 1364}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, b := range []service.Balance{service.Random, service.HashSourceIP} {
				backends := weigh(c.weights...)
				got := shares(cluster(b, backends))
				for i, want := range c.want {
					if got[backends[i].Addr] != want {
						t.Errorf("%s: backend %d of weight %d has %d slots, want %d", b, i, c.weights[i], got[backends[i].Addr], want)
					}
				}
			}
			backends, sum := weigh(c.weights...), 0
			for _, w := range c.weights {
				sum += max(1, int(w))
			}
			for i, got := range shares(cluster(service.Maglev, backends)) {
				for j, b := range backends {
					want := nft.MaglevSlots * max(1, int(c.weights[j])) / sum
					if b.Addr == i && (got < want-want/50-2 || got > want+want/50+2) {
						t.Errorf("maglev: weight %d has %d slots, want about %d", c.weights[j], got, want)
					}
				}
			}
		})
	}
	if n := len(cluster(service.Random, weigh(make([]uint16, 70000)...))); n != nft.MaxBackends {
		t.Errorf("70000 backends have %d slots", n)
	}
}

// TestWeightedSlotsStay changes backends of different weights: those that stay keep their slots, but for the ones that fill
// gaps.
func TestWeightedSlotsStay(t *testing.T) {
	all := pods(10)
	for i := range all {
		all[i].Weight = uint16(1 + i%3)
	}
	port := func(b []service.Backend) *service.Port { return &service.Port{Cluster: b} }
	before := nft.SlotsOf(port(all), nft.Slots{})
	after := nft.SlotsOf(port(without(all, 4)), before)
	moved := 0
	for i := range after.Cluster {
		if before.Cluster[i].Addr != after.Cluster[i].Addr {
			moved++
		}
	}
	if w := int(all[4].Weight); len(after.Cluster) != len(before.Cluster)-w || moved > w {
		t.Errorf("of %d slots %d are left, and %d changed", len(before.Cluster), len(after.Cluster), moved)
	}
	if got, want := fmt.Sprint(shares(after.Cluster)), fmt.Sprint(shares(cluster(service.Random, without(all, 4)))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func BenchmarkMaglev(b *testing.B) {
	backends := pods(100)
	for b.Loop() {
		cluster(service.Maglev, backends)
	}
}
