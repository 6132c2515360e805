package kubeproxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestNodePortAddresses(t *testing.T) {
	node := addrs("10.240.0.11 fd00:240::b")
	local := addrs("10.240.0.11 10.244.1.1 192.0.2.1 fd00:240::b fd00:244:0:1::1")
	for _, c := range []struct {
		name  string
		words string
		node  []netip.Addr
		want  string // addresses, or part of the error
	}{
		{"default is primary", "", node, "10.240.0.11 fd00:240::b"},
		{"primary", "primary", node, "10.240.0.11 fd00:240::b"},
		{"primary of a node without IPv6 serves all of IPv6", "primary", node[:1], "10.240.0.11 fd00:240::b fd00:244:0:1::1"},
		{"all", "all", node, "10.240.0.11 10.244.1.1 192.0.2.1 fd00:240::b fd00:244:0:1::1"},
		{"a network of each family", "192.0.2.0/24,fd00:240::/64", node, "192.0.2.1 fd00:240::b"},
		{"a family without a network is served at all addresses", "192.0.2.7/24", node, "192.0.2.1 fd00:240::b fd00:244:0:1::1"},
		{"a network that the machine is not in", "203.0.113.0/24,fd00:240::/64", node, "fd00:240::b"},
		{"an address is not a network", "192.0.2.1", node, "not a network"},
		{"primary stands alone", "primary,10.0.0.0/8", node, "stands alone"},
		{"all stands alone", "all,primary", node, "stands alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			words := strings.FieldsFunc(c.words, func(r rune) bool { return r == ',' })
			n, err := ParseNodePortAddresses(words)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("got error %v, want %q", err, c.want)
				}
				return
			}
			if got := n.choose(c.node, local); !slices.Equal(got, addrs(c.want)) {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func addrs(list string) (out []netip.Addr) {
	for _, s := range strings.Fields(list) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil
		}
		out = append(out, a)
	}
	return out
}
