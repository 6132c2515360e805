package nettest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"varco.dev/internal/nettest/sctp"
)

// Namespace is a network namespace that lives as long as something holds it: this value, a process in it, or a file
// that it was bound to.
type Namespace struct {
	Name   string
	handle netns.NsHandle
}

// quiet are settings that would make a test network slow or chatty: duplicate address detection holds back the first
// packets of each new interface for a second or two, and redirects are ICMP errors that nobody asked for. A host gets few
// ICMP errors a second, and all hosts together a thousand: the next refusal would look like a drop.
var quiet = [...]struct{ key, value string }{
	{"net.ipv6.conf.all.accept_dad", "0"},
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv4.conf.all.send_redirects", "0"},
	{"net.ipv4.conf.default.send_redirects", "0"},
	{"net.ipv4.icmp_ratelimit", "0"},
	{"net.ipv6.icmp.ratelimit", "0"},
	{"net.ipv4.icmp_ratemask", "0"},
	{"net.ipv6.icmp.ratemask", "\n"},
}

// NewNamespace makes an empty network namespace with its loopback interface up. It has no name on the machine; the
// name given is for messages. It needs root.
func NewNamespace(name string) (*Namespace, error) {
	n := &Namespace{Name: name}
	err := onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		n.handle, err = netns.Get()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	for _, s := range quiet {
		if err := n.Sysctl(s.key, s.value); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	if err := n.LinkUp("lo"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// OpenNamespace opens a namespace by a file that stands for it, such as one made by Bind or /proc/PID/ns/net.
func OpenNamespace(name, path string) (*Namespace, error) {
	h, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	return &Namespace{Name: name, handle: h}, nil
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return n.handle.Close() }

// FD returns the file descriptor of the namespace; it is valid until Close.
func (n *Namespace) FD() int { return int(n.handle) }

// Bind makes the namespace visible as a file at path, so that it outlives this process; Unbind undoes it.
func (n *Namespace) Bind(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	src := fmt.Sprintf("/proc/self/fd/%d", n.FD())
	if err := unix.Mount(src, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind network namespace %s to %s: %w", n.Name, path, err)
	}
	return nil
}

// Unbind removes a file made by Bind.
func Unbind(path string) error {
	return errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path))
}

// Do runs fn on a thread that is in the namespace. Sockets that fn opens and processes that it starts stay in the
// namespace; goroutines that it starts do not.
func (n *Namespace) Do(fn func() error) error {
	return onNewThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
		}
		return fn()
	})
}

// onNewThread runs fn on a thread that ends with it, so that no other goroutine ever runs in a namespace by accident.
func onNewThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- fn()
	}()
	return <-done
}

// Start starts the command in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Listen is net.Listen in the namespace.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.Do(func() error { l, err = net.Listen(network, address); return err })
	return l, err
}

// ListenPacket is net.ListenPacket in the namespace.
func (n *Namespace) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() error { c, err = net.ListenPacket(network, address); return err })
	return c, err
}

// ListenSCTP is sctp.Listen in the namespace.
func (n *Namespace) ListenSCTP(address string) (l *sctp.Listener, err error) {
	err = n.Do(func() error { l, err = sctp.Listen(address); return err })
	return l, err
}

// DialContext connects from the namespace. The address must be numeric. It suits http.Transport.DialContext.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return n.dial(ctx, nil, network, address)
}

// dial is DialContext from a local address; nil leaves it to the kernel.
func (n *Namespace) dial(ctx context.Context, local net.Addr, network, address string) (c net.Conn, err error) {
	// Fallback racing would dial on another goroutine, outside the namespace.
	d := net.Dialer{FallbackDelay: -1, LocalAddr: local}
	err = n.Do(func() error { c, err = d.DialContext(ctx, network, address); return err })
	return c, err
}

// Sysctl sets a key such as net.ipv4.ip_forward in the namespace.
func (n *Namespace) Sysctl(key, value string) error {
	return n.Do(func() error {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
		return os.WriteFile(path, []byte(value), 0)
	})
}

// Netlink runs fn with a route netlink handle of the namespace.
func (n *Namespace) Netlink(fn func(*netlink.Handle) error) error {
	h, err := netlink.NewHandleAt(n.handle)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", n.Name, err)
	}
	defer h.Close()
	if err := fn(h); err != nil {
		return fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	return nil
}
