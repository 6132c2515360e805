package cluster_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lookAtHost describes what of the machine a lab might change, one thing a line.
func lookAtHost(t *testing.T) []string {
	t.Helper()
	lines := append(network(t), mounts(t)...)
	for _, sysctl := range []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/all/route_localnet", "net/ipv4/conf/default/forwarding",
		"net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/accept_dad", "net/core/somaxconn",
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
		"fs/inotify/max_user_instances", "fs/inotify/max_user_watches",
	} {
		lines = append(lines, sysctl+" = "+strings.Join(readLines(t, "/proc/sys/"+sysctl), " "))
	}
	slices.Sort(lines)
	return lines
}

// mounts leaves out those in folders of other tests, which may run at the same time and make some.
func mounts(t *testing.T) []string {
	t.Helper()
	others := func(line string) bool {
		return strings.Contains(line, " "+os.TempDir()+"/Test") && !strings.Contains(line, "/"+t.Name())
	}
	return slices.DeleteFunc(readLines(t, "/proc/self/mountinfo"), others)
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func network(t *testing.T) (lines []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		a := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %d %s %s %s mtu %d master %d", a.Index, a.Name, l.Type(), a.Flags, a.MTU, a.MasterIndex))
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			lines = append(lines, fmt.Sprintf("address %s %s", a.Name, addr.IPNet))
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			lines = append(lines, fmt.Sprintf("route %s dev %d by way of %s table %d type %d", r.Dst, r.LinkIndex, r.Gw, r.Table, r.Type))
		}
	}
	return lines
}

// checkHost compares the machine with what it was.
func checkHost(t *testing.T, when string, before []string) {
	t.Helper()
	if diff := cmp.Diff(before, lookAtHost(t)); diff != "" {
		t.Errorf("%s the machine is another (-before +now):\n%s", when, diff)
	}
}
