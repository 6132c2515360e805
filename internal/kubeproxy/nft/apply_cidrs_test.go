package nft_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/service"
)

// TestServiceCIDRs has the kernel hold networks that touch, contain each other, and end where the addresses end.
func TestServiceCIDRs(t *testing.T) {
	ns, fake := namespace(t), &nfttest.Kernel{}
	kernel := tee{netlinkKernel(t, config(ns)), fake}
	plane := nft.New(kernel)
	var before []netip.Prefix
	for _, list := range []string{
		"10.96.0.0/16 fd96::/112",
		"10.96.0.0/17 10.96.128.0/17 fd96::/112",
		"10.96.0.0/16 10.96.5.0/24 10.97.0.0/16 fd96::/112 fd96::1:0/112",
		"255.255.0.0/16 ffff::/16",
		"10.96.0.0/16",
		"0.0.0.0/0 ::/0",
		"",
	} {
		var cidrs []netip.Prefix
		for _, s := range strings.Fields(list) {
			cidrs = append(cidrs, netip.MustParsePrefix(s))
		}
		do := plane.Update
		if before == nil {
			do = plane.Replace
		}
		if err := do(t.Context(), service.Changes{OldCIDRs: before, CIDRs: cidrs}); err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		if diff := cmp.Diff(fake.Dump(), content(t, kernel)); diff != "" {
			t.Errorf("%s: (-committed +kernel)\n%s", list, diff)
		}
		before = cidrs
	}
}
