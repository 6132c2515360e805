package backend_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"varco.dev/internal/backend"
)

func keyOf(n int) uint64 {
	return backend.HashAddr(netip.AddrFrom4([4]byte{192, 168, byte(n >> 8), byte(n)}))
}

// TestKeys wants keys to be spread, to stay where they are, to move only if they must, and to be the same for all.
func TestKeys(t *testing.T) {
	const n, keys = 10, 10000
	p, replica := backend.NewPool(backend.Config{}), backend.NewPool(backend.Config{})
	p.Set(targets(n))
	shuffled := targets(n)
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	replica.Set(shuffled)
	at, count := map[int]netip.AddrPort{}, map[netip.AddrPort]int{}
	for k := range keys {
		w := backend.Want{Key: keyOf(k), Keyed: true}
		a, b := pick(t, p, w), pick(t, replica, w)
		a.Done()
		b.Done()
		if a.Addr() != b.Addr() {
			t.Fatal("replicas do not agree")
		}
		at[k] = a.Addr()
		count[a.Addr()]++
	}
	for a, c := range count {
		if c < keys/n*8/10 || c > keys/n*12/10 {
			t.Errorf("%v has got %d of %d keys", a, c, keys)
		}
	}
	fail(t, p, addr(4))
	moved := map[netip.AddrPort]int{}
	for k := range keys {
		w := backend.Want{Key: keyOf(k), Keyed: true}
		l := pick(t, p, w)
		l.Done()
		second := pick(t, replica, backend.Want{Key: w.Key, Keyed: true, Avoid: []netip.AddrPort{addr(4)}})
		second.Done()
		switch {
		case at[k] != addr(4) && l.Addr() != at[k]:
			t.Fatal("a key has moved though its target is up")
		case l.Addr() != second.Addr():
			t.Fatal("a target that is left out and one to be avoided give different ones")
		case at[k] == addr(4):
			moved[l.Addr()]++
		}
	}
	if len(moved) != n-1 {
		t.Errorf("the keys of the one that is left out went to %v", moved)
	}
}

func TestHashAddrForms(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.1")
	if backend.HashAddr(a) != backend.HashAddr(netip.MustParseAddr("::ffff:192.0.2.1")) {
		t.Error("the two forms of an IPv4 address differ")
	}
	if got := backend.HashAddr(a); got != 0xd21f2ca35c221d8d {
		t.Errorf("the key of %v is %#x: replicas of different versions must agree, so it cannot change", a, got)
	}
}
