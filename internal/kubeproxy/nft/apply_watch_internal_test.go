package nft

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// TestWatchReportsWhatItMayHaveMissed has another program change more than the buffer holds.
func TestWatchReportsWhatItMayHaveMissed(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	config := Config{Families: []service.Family{service.IPv4}, MasqueradeMark: 1, NetNS: ns.FD()}
	own, other := NewNetlink(config), NewNetlink(config)
	defer own.Close()
	defer other.Close()
	reports := make(chan string, 100)
	w := &watcher{Netlink: own, changed: func(reason string) { reports <- reason }}
	if err := w.openSocket(); err != nil {
		t.Fatal(err)
	}
	if err := w.socket.conn.SetReadBuffer(1); err != nil { // the kernel's least
		t.Fatal(err)
	}
	var addrs []netip.Addr
	for i := range 5000 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{10, 240, byte(i >> 8), byte(i)}))
	}
	if err := New(other).Replace(t.Context(), service.Changes{NodeAddrs: addrs}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.listen(ctx) }()
	select {
	case reason := <-reports:
		if !strings.Contains(reason, "more changes than could be kept") {
			t.Errorf("reported %q", reason)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing is reported")
	}
	cancel()
	<-ended
}
