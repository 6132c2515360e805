package kubeproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// TestClusterIPs is what becomes of packets to ports that a ClusterIP does not have, and to ClusterIPs that nobody has.
func TestClusterIPs(t *testing.T) {
	s := newStage(t)
	for _, a := range []string{"10.96.0.99/32", "fd00:96::99/128"} {
		s.must(s.world.Router.AddAddr("lo", netip.MustParsePrefix(a)))
	}
	s.listen("router", echoPort)
	services := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")}
	s.serve("clusterips.txtar", knowsPods(), func(n *stageNode) { n.table.SetCIDRs(services) })
	s.check("clusterips.txtar", "packets")
	for _, from := range []string{"pod-1c", "node-1", "client"} {
		for _, a := range []string{"10.96.0.20", "fd00:96::20"} {
			t.Run(fmt.Sprintf("%s pings %s", from, a), func(t *testing.T) {
				if err := ping(t.Context(), s.hosts.Namespaces[from], a); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("got %v, want %v", err, syscall.ECONNREFUSED)
				}
			})
		}
	}

	// The networks change: at once, and for nobody else.
	other := []netip.Prefix{netip.MustParsePrefix("10.97.0.0/16"), netip.MustParsePrefix("fd00:97::/112")}
	s.change(func(n *stageNode) { n.table.SetCIDRs(other) })
	t.Run("other networks", func(t *testing.T) { s.in(t).check("clusterips.txtar", "other networks") })
	s.change(func(n *stageNode) {
		n.table.SetCIDRs(append(other, services...))
		n.table.DeleteService(service.Name{Namespace: "test", Name: "web"})
	})
	s.forgetAll()
	t.Run("without web", func(t *testing.T) { s.in(t).check("clusterips.txtar", "without web") })
}

// ping sends an echo request, and returns the error that comes back for it.
func ping(ctx context.Context, from *nettest.Namespace, to string) error {
	network, request := "ip4:icmp", []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0} // type, code, checksum, identifier, number
	if netip.MustParseAddr(to).Is6() {
		network, request = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 0, 0, 0} // the kernel fills the checksum in
	}
	c, err := from.DialContext(ctx, network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(request); err != nil && !errors.Is(err, syscall.EPERM) {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}
