package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"varco.dev/bench/internal/contender"
	"varco.dev/internal/nettest"
)

// APIServerPort is where each API server listens.
const APIServerPort = 6443

// Control is one of several control planes, of which a benchmark runs the API server itself.
type Control struct {
	// NS is its machine. Whoever has it closes it.
	NS *nettest.Namespace
	// At is where its API server is reached, Gateway is the machine's way to all other networks.
	At      netip.AddrPort
	Gateway netip.Addr
	// Args are the arguments of the lab's program that are that API server.
	Args []string
}

// firstControl is the number in nettest.NodeNet of the first control plane. The numbers of others follow.
const firstControl = 2

// Take stops the API server of control plane number i, and tells how to start it again.
func (l *Lab) Take(ctx context.Context, i int) (c Control, err error) {
	c.At = netip.AddrPortFrom(nettest.NodeNet.Host(firstControl+i).V4.Addr(), APIServerPort)
	c.Gateway = nettest.NodeNet.Host(nettest.RouterHost).V4.Addr()
	own, err := l.own("kube-apiserver")
	if err != nil {
		return c, err
	}
	pid, err := contender.Find(own, "--advertise-address="+c.At.Addr().String())
	if err != nil {
		return c, err
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return c, fmt.Errorf("read arguments of an API server: %w", err)
	}
	c.Args = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")[1:]
	if c.NS, err = nettest.OpenNamespace(l.name("control-plane", i), fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
		return c, err
	}
	return c, l.Stop(ctx, l.name("kube-apiserver", i))
}

// Client opens the machine beyond the router that all control planes can be reached from. The caller closes it.
func (l *Lab) Client() (*nettest.Namespace, error) {
	etcd, err := l.Component("etcd")
	if err != nil {
		return nil, err
	}
	dir, err := l.realDir()
	if err != nil {
		return nil, err
	}
	// The files of the machines are mounted where only the lab's processes see them.
	return nettest.OpenNamespace("client", filepath.Join(fmt.Sprintf("/proc/%d/root", etcd), dir, "netns", "client"))
}
