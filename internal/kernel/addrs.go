package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bounds of what the kernel may have to tell before it is read.
const (
	addrQueue  = 64      // updates
	addrBuffer = 1 << 20 // bytes
)

// LocalAddrs returns the addresses of all interfaces of this machine, sorted, but the loopback ones.
func LocalAddrs() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	// A dump that the kernel says was interrupted is followed by a notice of what changed.
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.Flags&unix.IFA_F_TENTATIVE == 0 {
			if ip = ip.Unmap(); !ip.IsLoopback() {
				out = append(out, ip)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// WatchAddrs calls changed with LocalAddrs now and whenever they change, one call at a time, until the context ends;
// then it returns nil. An error ends it, say that the kernel had more to tell than there was room for; it may be called
// again.
func WatchAddrs(ctx context.Context, changed func([]netip.Addr)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := make(chan netlink.AddrUpdate, addrQueue)
	failed := make(chan error, 1)
	report := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	options := netlink.AddrSubscribeOptions{ErrorCallback: report, ReceiveBufferSize: addrBuffer}
	if err := netlink.AddrSubscribeWithOptions(updates, ctx.Done(), options); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	for {
		addrs, err := LocalAddrs()
		if err != nil {
			return err
		}
		changed(addrs)
		err = waitAddrs(ctx, updates, failed)
		if ctx.Err() != nil { // closes the subscription, which may look like a failure
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// waitAddrs returns when there are new updates, all of which it takes.
func waitAddrs(ctx context.Context, updates <-chan netlink.AddrUpdate, failed <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("watch addresses: %w", err)
	case _, ok := <-updates:
		if !ok { // the error that ended it is reported before
			return <-failed
		}
	}
	for len(updates) > 0 {
		<-updates
	}
	return nil
}
