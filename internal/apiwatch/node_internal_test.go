package apiwatch

import (
	"net/netip"
	"slices"
	"testing"
)

func TestWithAddr(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("198.51.100.1")
	for _, row := range []struct {
		addrs []netip.Addr
		with  netip.Addr
		want  []netip.Addr
	}{
		{[]netip.Addr{a, b}, netip.Addr{}, []netip.Addr{a, b}},
		{[]netip.Addr{a, b}, c, []netip.Addr{c, b}},
		{[]netip.Addr{b}, c, []netip.Addr{c, b}},
		{nil, b, []netip.Addr{b}},
	} {
		if got := withAddr(row.addrs, row.with); !slices.Equal(got, row.want) {
			t.Errorf("%v with %v: got %v, want %v", row.addrs, row.with, got, row.want)
		}
	}
}
