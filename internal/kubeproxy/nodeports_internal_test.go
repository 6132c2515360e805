package kubeproxy

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"varco.dev/internal/kubeproxy/config"
)

func TestNodePortAddresses(t *testing.T) {
	node := addrs("10.240.0.11 fd00:240::b")
	local := addrs("10.240.0.11 10.244.1.1 192.0.2.1 fd00:240::b fd00:244:0:1::1")
	everywhere := "0.0.0.0 ::"
	for _, c := range []struct {
		name     string
		primary  bool
		networks string
		node     []netip.Addr
		want     string
	}{
		{"primary", true, "", node, "10.240.0.11 fd00:240::b"},
		{"primary of a node without IPv6 serves all of IPv6", true, "", node[:1], "10.240.0.11 ::"},
		{"nothing named", false, "", node, everywhere},
		{"all", false, "0.0.0.0/0 ::/0", node, everywhere},
		{"all and localhost", false, "0.0.0.0/0 ::/0 127.0.0.0/8 ::1/128", node, "0.0.0.0 127.0.0.1 :: ::1"},
		{"a network of each family", false, "192.0.2.0/24 fd00:240::/64", node, "192.0.2.1 fd00:240::b"},
		{"a family without a network is served at all addresses", false, "192.0.2.0/24", node, "192.0.2.1 ::"},
		{"a network that the machine is not in", false, "203.0.113.0/24 fd00:240::/64", node, "fd00:240::b"},
		{"primary and a network", true, "192.0.2.0/24", node, "10.240.0.11 192.0.2.1 fd00:240::b"},
		{"primary and localhost", true, "127.0.0.0/8 ::1/128", node, "10.240.0.11 127.0.0.1 ::1 fd00:240::b"},
		{"localhost of one family", true, "127.0.0.0/8", node, "10.240.0.11 127.0.0.1 fd00:240::b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := config.NodePorts{Primary: c.primary}
			for _, s := range strings.Fields(c.networks) {
				n.Networks = append(n.Networks, netip.MustParsePrefix(s))
			}
			got := chooseAddrs(n, c.node, local)
			slices.SortFunc(got, netip.Addr.Compare)
			want := addrs(c.want)
			slices.SortFunc(want, netip.Addr.Compare)
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
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

// TestNodePortsTellWithoutTheLockOfReaders has whoever is told hold a lock of its own, as the loop does, while someone who
// holds that lock asks: with one lock for both, each would wait for the other.
func TestNodePortsTellWithoutTheLockOfReaders(t *testing.T) {
	var table sync.Mutex
	telling := make(chan struct{}, 1)
	n := &nodePorts{log: slog.New(slog.DiscardHandler), update: func([]netip.Addr) {
		telling <- struct{}{}
		table.Lock()
		defer table.Unlock()
	}}
	table.Lock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		n.setLocal(addrs("192.0.2.1"))
	}()
	<-telling
	asked := make(chan bool, 1)
	go func() { asked <- n.isLocal(addrs("192.0.2.1")[0]) && n.serves(addrs("192.0.2.1")[0]) }()
	select {
	case yes := <-asked:
		if !yes {
			t.Error("an address is not served that is being told")
		}
	case <-time.After(5 * time.Second):
		t.Error("readers wait for whoever is told")
	}
	table.Unlock()
	<-told
}
