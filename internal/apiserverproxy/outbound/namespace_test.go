package outbound_test

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/nettest"
)

// hostAddresses is the variable that names addresses of the host that the test binary runs on, see TestOnAHost.
const hostAddresses = "VARCO_TEST_ADDRESSES"

// TestOnAHost runs TestReach on a host of its own, which has addresses that targets may have and some that none may have.
func TestOnAHost(t *testing.T) {
	nettest.NeedRoot(t)
	host, err := nettest.NewNamespace("host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	addresses := []string{"192.0.2.1", "10.1.2.3", "2001:db8::1", "fd00::1", "169.254.169.254", "100.100.100.200", "fd00:ec2::254", "203.0.113.1"}
	for _, a := range addresses {
		addr := netip.MustParseAddr(a)
		if err := host.AddAddr("lo", netip.PrefixFrom(addr, addr.BitLen())); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(self, "-test.run=^TestReach$", "-test.v")
	cmd.Env = append(os.Environ(), hostAddresses+"="+strings.Join(addresses, " "))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := host.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "reached 4 of 10 addresses") {
		t.Errorf("%v: %s", err, &out)
	}
}

// TestReach has a target at each address of hostAddresses and of loopback, and no exemption from the guard.
func TestReach(t *testing.T) {
	denied := netip.MustParsePrefix("203.0.113.0/24")
	addresses := append(strings.Fields(os.Getenv(hostAddresses)), "127.0.0.1", "::1")
	own := netip.MustParseAddrPort("192.0.2.99:1")
	o := strict(t, outbound.Config{Deny: []netip.Prefix{denied}, Own: func() []netip.AddrPort { return []netip.AddrPort{own} }})
	reached := 0
	for _, a := range addresses {
		addr := netip.MustParseAddr(a)
		server := newTargetAt(t, netip.AddrPortFrom(addr, 0))
		may := outbound.Refused(addr) == "" && !denied.Contains(addr)
		ask := func(may bool) {
			t.Helper()
			for _, rt := range []http.RoundTripper{o.RoundTripper(outbound.Profile{Scheme: "http"}), o.Upgrade(outbound.Profile{Scheme: "http"})} {
				before, _ := server.connections()
				_, err := send(rt, request(t, "GET", server.URL, ""))
				var refused *outbound.RefusedError
				after, _ := server.connections()
				if may && err != nil || !may && (!errors.As(err, &refused) || after != before) {
					t.Errorf("%s: got %v", a, err)
				}
			}
		}
		ask(may)
		if !may {
			continue
		}
		reached++
		for _, c := range []struct {
			own netip.Addr
			off uint16 // of the port
			may bool
		}{{addr, 0, false}, {netip.IPv6Unspecified(), 0, false}, {netip.IPv4Unspecified(), 0, false}, {addr, 1, true}} {
			server.CloseClientConnections() // the guard looks at new ones
			until(t, "they are closed", func() bool { _, open := server.connections(); return open == 0 })
			own = netip.AddrPortFrom(c.own, uint16(server.Listener.Addr().(*net.TCPAddr).Port)+c.off)
			ask(c.may)
		}
	}
	t.Logf("reached %d of %d addresses", reached, len(addresses))
}

// newTargetAt is newTarget at an address.
func newTargetAt(t *testing.T, at netip.AddrPort) *target {
	t.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	return newTarget(t, describe, func(s *httptest.Server) bool {
		s.Listener.Close()
		s.Listener = l
		return false
	})
}
