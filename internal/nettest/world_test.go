package nettest_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"varco.dev/internal/nettest"
)

func TestWorldReachesAll(t *testing.T) {
	nettest.NeedRoot(t)
	w, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	node, err := w.AddHost("node", 11)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := nettest.NewNamespace("pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	if err := nettest.AddPod(node, pod, "pod0", nettest.PodNetOf(1).Host(2), nettest.PodNetOf(1).Host(1)); err != nil {
		t.Fatal(err)
	}

	// The router knows the nodes only, so the client reaches the node, and the pod reaches the node.
	for _, addr := range nettest.NodeNet.Host(11).Addrs() {
		for _, from := range []*nettest.Namespace{w.Client, pod} {
			if got := greet(t, node, from, addr); got != "hello" {
				t.Errorf("from %s to %s: got %q", from.Name, addr, got)
			}
		}
	}
	for _, addr := range nettest.PodNetOf(1).Host(2).Addrs() {
		if got := greet(t, pod, node, addr); got != "hello" {
			t.Errorf("from node to pod %s: got %q", addr, got)
		}
	}
}

// greet returns what a client in from reads from a server in at.
func greet(t *testing.T, at, from *nettest.Namespace, addr netip.Addr) string {
	t.Helper()
	l, err := at.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "hello")
		c.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var c net.Conn
	if c, err = from.DialContext(ctx, "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, _ := io.ReadAll(c)
	return string(b)
}
