package kernel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	route "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What the IPVS mode of kube-proxy makes besides rules.
const (
	ipvsDevice    = "kube-ipvs0"
	maxIPSetName  = 31 // bytes; longer names of IPv6 sets are cut
	ipvsFamily    = "IPVS"
	ipvsFlush     = 17 // IPVS_CMD_FLUSH of linux/ip_vs.h
	ipvsVersion   = 1  // IPVS_GENL_VERSION
	genericHeader = 4  // bytes of struct genlmsghdr
)

// Messages of IP sets (linux/netfilter/ipset/ip_set.h).
const (
	ipsetDestroy      = 3
	ipsetAttrProtocol = 1
	ipsetAttrSet      = 2
	ipsetProtocol     = 6 // since Linux 2.6.39; later ones understand it
)

// ownIPSets are the IP sets of the IPVS mode for IPv4. Those for IPv6 have "KUBE-6-" for "KUBE-".
var ownIPSets = []string{
	"KUBE-LOOP-BACK", "KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL", "KUBE-LOAD-BALANCER",
	"KUBE-LOAD-BALANCER-FW", "KUBE-LOAD-BALANCER-LOCAL", "KUBE-LOAD-BALANCER-SOURCE-IP", "KUBE-LOAD-BALANCER-SOURCE-CIDR",
	"KUBE-NODE-PORT-TCP", "KUBE-NODE-PORT-LOCAL-TCP", "KUBE-NODE-PORT-UDP", "KUBE-NODE-PORT-LOCAL-UDP",
	"KUBE-NODE-PORT-SCTP-HASH", "KUBE-NODE-PORT-LOCAL-SCTP-HASH", "KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-IPVS-IPS",
}

func removeIPVSLeftovers(ctx context.Context) (removed []string, err error) {
	device, err := removeIPVSDevice()
	sets, err2 := removeIPSets(ctx)
	return append(device, sets...), errors.Join(err, err2)
}

// removeIPVSDevice removes the interface that holds the addresses of Services, and the virtual servers that it shows to be
// kube-proxy's. It removes the interface last, so that it is tried again if the servers stay.
func removeIPVSDevice() (removed []string, err error) {
	link, err := route.LinkByName(ipvsDevice)
	if errors.As(err, new(route.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", ipvsDevice, err)
	}
	family, err := route.GenlFamilyGet(ipvsFamily)
	switch {
	case errors.Is(err, unix.ENOENT): // the kernel has no IPVS, or it is not loaded
	case err != nil:
		return nil, fmt.Errorf("find IPVS: %w", err)
	default:
		if err := flushIPVS(netlink.HeaderType(family.ID)); err != nil {
			return nil, fmt.Errorf("remove the virtual servers of IPVS: %w", err)
		}
		removed = append(removed, "IPVS virtual servers")
	}
	if err := route.LinkDel(link); err != nil {
		return removed, fmt.Errorf("remove interface %s: %w", ipvsDevice, err)
	}
	return append(removed, "interface "+ipvsDevice), nil
}

func flushIPVS(family netlink.HeaderType) error {
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(leftoverTimeout)); err != nil {
		return err
	}
	_, err = conn.Execute(ipvsFlushRequest(family))
	return err
}

func ipvsFlushRequest(family netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: family, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(make([]byte, 0, genericHeader), ipvsFlush, ipvsVersion, 0, 0),
	}
}

// removeIPSets removes the sets of both IP families. It asks for each, because a list has all their members too.
func removeIPSets(ctx context.Context) (removed []string, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(leftoverTimeout)); err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range ipSets() {
		if err := ctx.Err(); err != nil {
			return removed, errors.Join(append(errs, err)...)
		}
		_, err := conn.Execute(destroyRequest(name))
		switch {
		case err == nil:
			removed = append(removed, "IP set "+name)
		case isMissing(err): // no IP sets at all
			return removed, errors.Join(errs...)
		case !errors.Is(err, unix.ENOENT):
			errs = append(errs, fmt.Errorf("remove IP set %s: %w", name, err))
		}
	}
	return removed, errors.Join(errs...)
}

// ipSets returns the names of the sets of both IP families.
func ipSets() (names []string) {
	for _, v4 := range ownIPSets {
		v6 := strings.Replace(v4, "KUBE-", "KUBE-6-", 1)
		names = append(names, v4, v6[:min(len(v6), maxIPSetName)])
	}
	return names
}

// destroyRequest asks to remove one set. Without a name it would be all sets; without Excl a missing one would be fine.
func destroyRequest(name string) netlink.Message {
	b := appendAttribute([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}, ipsetAttrProtocol, []byte{ipsetProtocol})
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_IPSET<<8 | ipsetDestroy),
			Flags: netlink.Request | netlink.Acknowledge | netlink.Excl,
		},
		Data: appendAttribute(b, ipsetAttrSet, append([]byte(name), 0)),
	}
}
