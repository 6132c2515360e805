package nettest_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"varco.dev/internal/nettest"
)

// TestClientAsks is what a client hears of a server, of no server, and of nobody, by each protocol.
func TestClientAsks(t *testing.T) {
	nettest.NeedRoot(t)
	w, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	node, err := w.AddHost("node", 11)
	if err != nil {
		t.Fatal(err)
	}
	echo, err := nettest.StartEcho(node, "node", 8080)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		for f, addr := range nettest.NodeNet.Host(11).Addrs() {
			c := nettest.Client{Host: w.Client, Protocol: protocol}
			from := nettest.ClientNet.Host(nettest.ClientHost).Addrs()[f]
			a, err := c.Ask(t.Context(), netip.AddrPortFrom(addr, 8080))
			if err != nil || a.Server != "node" || a.Client.Addr() != from {
				t.Errorf("%s to %s: got %+v, %v, want node and %s", protocol, addr, a, err, from)
			}
			if protocol != "sctp" { // whose server leaves other ports unanswered
				if _, err := c.Ask(t.Context(), netip.AddrPortFrom(addr, 8081)); !errors.Is(err, nettest.ErrRefused) {
					t.Errorf("%s to %s without a server: got %v, want %v", protocol, addr, err, nettest.ErrRefused)
				}
			}
			c.Patience = 50 * time.Millisecond
			nobody := nettest.NodeNet.Host(99).Addrs()[f]
			if _, err := c.Ask(t.Context(), netip.AddrPortFrom(nobody, 8080)); !errors.Is(err, nettest.ErrNoAnswer) {
				t.Errorf("%s to nobody: got %v, want %v", protocol, err, nettest.ErrNoAnswer)
			}
		}
	}
}
