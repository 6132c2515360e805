package apiserverlb

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"varco.dev/internal/apiserverlb/config"
)

// TestLeadsTo looks at what comes to listeners of this machine.
func TestLeadsTo(t *testing.T) {
	for _, c := range []struct {
		addr, listener string
		want           bool
	}{
		{"10.0.0.1:6443", "10.0.0.1:6443", true},
		{"10.0.0.1:6444", "10.0.0.1:6443", false},
		{"127.0.0.1:6443", "0.0.0.0:6443", true},
		{"127.8.9.1:6443", "[::]:6443", true},
		{"[::1]:6443", "[::]:6443", true},
		{"[::1]:6443", "0.0.0.0:6443", false},
		{"127.0.0.1:6444", "[::]:6443", false},
		{"192.0.2.1:6443", "[::]:6443", false},
	} {
		if got := leadsTo(netip.MustParseAddrPort(c.addr), netip.MustParseAddrPort(c.listener)); got != c.want {
			t.Errorf("%s comes to %s: %t", c.addr, c.listener, got)
		}
	}
}

// TestOwnBeforeListening asks before any listener is open: what is found then must not be the balancer itself.
func TestOwnBeforeListening(t *testing.T) {
	c := config.Default()
	c.Listeners = []config.Listener{{Address: ":6443"}}
	c.Backends.Static = []config.Static{{Address: "192.0.2.1:6443"}}
	c.Complete()
	lb, err := New(Config{Settings: c, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		at := netip.AddrPortFrom(netip.MustParsePrefix(a.String()).Addr(), 6443)
		if !lb.own(at) {
			t.Errorf("%s is none of our own", at)
		}
	}
	if lb.own(netip.MustParseAddrPort("192.0.2.1:6443")) {
		t.Error("a strange address is our own")
	}
}
