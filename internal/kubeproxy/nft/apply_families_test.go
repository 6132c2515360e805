package nft_test

import (
	"net/netip"
	"testing"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/service"
)

// TestNodeWithoutIPv6 serves IPv4 where the API has Services, and there are addresses, of both families.
func TestNodeWithoutIPv6(t *testing.T) {
	c := config(namespace(t))
	c.Families, c.Counters = []service.Family{service.IPv4}, nft.CountAll
	kernel := netlinkKernel(t, c)
	plane := nft.New(kernel)
	all := service.Changes{
		NodeAddrs: []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()},
		CIDRs:     []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/112")},
	}
	for family, address := range []string{"10.96.0.1:80", "[fd96::1]:80"} {
		at := netip.MustParseAddrPort(address)
		all.Ports = append(all.Ports, service.Change{New: &service.Port{
			Key:          service.Key{Service: service.Name{Name: "web"}, Protocol: service.TCP, Family: service.Family(family)},
			Frontends:    []service.Frontend{{Kind: service.ClusterIP, Addr: at}},
			Cluster:      []service.Backend{{Addr: at, Local: true}},
			HasEndpoints: true,
		}})
	}
	for range 2 { // the second one goes on with what the first one has made
		if err := plane.Replace(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	gone := service.Changes{OldNode: all.NodeAddrs, OldCIDRs: all.CIDRs, CIDRs: all.CIDRs}
	for _, p := range all.Ports {
		gone.Ports = append(gone.Ports, service.Change{Old: p.New})
	}
	if err := plane.Update(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
}
