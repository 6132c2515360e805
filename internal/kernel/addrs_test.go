package kernel_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"varco.dev/internal/kernel"
	"varco.dev/internal/nettest"
)

func TestWatchAddrs(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := ns.AddBridge("br0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan []netip.Addr, 16), make(chan error, 1)
	go func() {
		ended <- ns.Do(func() error { return kernel.WatchAddrs(ctx, func(a []netip.Addr) { told <- a }) })
	}()
	wait := func(want ...string) {
		t.Helper()
		var got []netip.Addr
		for deadline := time.After(5 * time.Second); ; {
			select {
			case got = <-told:
				got = slices.DeleteFunc(got, netip.Addr.IsLinkLocalUnicast) // which each interface has
			case <-deadline:
				t.Fatalf("told %v last, want %v", got, want)
			}
			if slices.EqualFunc(got, want, func(a netip.Addr, s string) bool { return a.String() == s }) {
				return
			}
		}
	}
	wait() // no loopback addresses
	for _, p := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		if err := ns.AddAddr("br0", netip.MustParsePrefix(p)); err != nil {
			t.Fatal(err)
		}
	}
	wait("192.0.2.1", "2001:db8::1")
	if err := ns.DelLink("br0"); err != nil {
		t.Fatal(err)
	}
	wait()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("WatchAddrs returned %v at the end of its context", err)
	}
}
