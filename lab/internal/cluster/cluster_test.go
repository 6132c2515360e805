package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/cluster"
)

// buildLab returns the path of the lab's program, built for the test.
func buildLab(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "varco-lab")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "varco.dev/lab")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the lab: %v\n%s", err, out)
	}
	return binary
}

func TestLife(t *testing.T) {
	nettest.NeedRoot(t)
	cfg := cluster.Config{Dir: filepath.Join(t.TempDir(), "lab"), Nodes: 1, Binary: buildLab(t)}
	t.Cleanup(func() {
		if _, err := cluster.Down(context.WithoutCancel(t.Context()), cfg.Dir); err != nil {
			t.Error(err)
		}
	})
	before := lookAtHost(t)
	up(t, cfg)
	checkHost(t, "while a lab is up", before)
	if err := cluster.Up(t.Context(), cfg, nil); !errors.Is(err, cluster.ErrUp) {
		t.Errorf("up twice: got %v, want %v", err, cluster.ErrUp)
	}
	lab := open(t, cfg.Dir)
	checkObjects(t, lab)
	checkRoutes(t, lab)
	checkStopAndStart(t, lab)

	runPod(t, lab)
	processes := descendants(t, supervisorID(t, cfg.Dir))
	checkClaim(t, cfg.Dir, processes)
	awaitEnd := watchEnd(t, processes)
	kill(t, cfg.Dir)
	awaitEnd()
	checkHost(t, "after a lab was killed", before)
	if _, err := cluster.Open(cfg.Dir); !errors.Is(err, cluster.ErrNotUp) {
		t.Errorf("open a killed lab: got %v, want %v", err, cluster.ErrNotUp)
	}
	checkNothingLeft(t, cfg.Dir)

	up(t, cfg)
	checkObjects(t, open(t, cfg.Dir))
	for _, want := range []bool{true, false} {
		if removed, err := cluster.Down(t.Context(), cfg.Dir); err != nil || removed != want {
			t.Errorf("down: %t, %v, want %t", removed, err, want)
		}
	}
	checkNothingLeft(t, cfg.Dir)
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder after down: %v", err)
	}
	checkHost(t, "after down", before)
}

func up(t *testing.T, cfg cluster.Config) {
	t.Helper()
	start := time.Now()
	if err := cluster.Up(t.Context(), cfg, func(s cluster.Step) { t.Log(s.Title, s.State, s.Took) }); err != nil {
		t.Fatal(err)
	}
	t.Log("up after", time.Since(start))
}

func open(t *testing.T, dir string) *cluster.Cluster {
	t.Helper()
	lab, err := cluster.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

func newClient(t *testing.T, lab *cluster.Cluster) kubernetes.Interface {
	t.Helper()
	conf, err := lab.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// checkObjects looks at the cluster as kubectl would.
func checkObjects(t *testing.T, lab *cluster.Cluster) {
	t.Helper()
	client := newClient(t, lab)
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes.Items) != 1 || len(nodes.Items[0].Spec.PodCIDRs) != 2 {
		t.Errorf("got nodes %v, want one with two pod networks", nodes.Items)
	}
	service, err := client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if service.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("service kubernetes has address %s", service.Spec.ClusterIP)
	}
}

// checkRoutes sees that control planes find pods through the node, that the router does not, and where external
// addresses lead.
func checkRoutes(t *testing.T, lab *cluster.Cluster) {
	t.Helper()
	node := nettest.NodeNet.Host(11)
	router := nettest.NodeNet.Host(nettest.RouterHost)
	for _, tc := range []struct {
		from string
		to   string
		via  netip.Addr // invalid: no route
	}{
		{"control-plane-0", "10.244.0.9", node.V4.Addr()},
		{"control-plane-0", "fd00:244::9", node.V6.Addr()},
		{"router", "10.244.0.9", netip.Addr{}},
		{"router", "10.96.0.1", netip.Addr{}},
		{"router", "198.51.100.7", node.V4.Addr()},
		{"router", "2001:db8:51::7", node.V6.Addr()},
		{"node-1", "203.0.113.10", router.V4.Addr()},
	} {
		if got := gateway(t, lab, tc.from, tc.to); got != tc.via {
			t.Errorf("from %s to %s: by way of %v, want %v", tc.from, tc.to, got, tc.via)
		}
	}
	if _, err := lab.Namespace("node-9"); err == nil {
		t.Error("namespace of a node that does not exist: no error")
	}
}

// gateway asks the kernel of a machine for the next hop.
func gateway(t *testing.T, lab *cluster.Cluster, machine, to string) netip.Addr {
	t.Helper()
	ns, err := lab.Namespace(machine)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var via netip.Addr
	err = ns.Netlink(func(h *netlink.Handle) error {
		routes, err := h.RouteGet(net.ParseIP(to))
		if errors.Is(err, unix.ENETUNREACH) || err != nil && errors.Is(err, unix.EHOSTUNREACH) {
			return nil
		}
		if err == nil {
			via, _ = netip.AddrFromSlice(routes[0].Gw)
			via = via.Unmap()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return via
}

func checkStopAndStart(t *testing.T, lab *cluster.Cluster) {
	t.Helper()
	const name = "kube-scheduler"
	if err := lab.Stop(t.Context(), name, 0); err != nil {
		t.Fatal(err)
	}
	if got := find(t, lab, name); got.State != "stopped" || got.Restarts != 0 {
		t.Errorf("after stop: %+v", got)
	}
	if err := lab.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if got := find(t, lab, name); got.State != "running" || got.Restarts != 1 {
		t.Errorf("after start: %+v", got)
	}
	if err := lab.Start(t.Context(), name); err == nil {
		t.Error("start what runs: no error")
	}
	if err := lab.Stop(t.Context(), "nobody", 0); err == nil {
		t.Error("stop what does not exist: no error")
	}
}

func find(t *testing.T, lab *cluster.Cluster, name string) cluster.Component {
	t.Helper()
	list, err := lab.Components(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no component %s in %+v", name, list)
	return cluster.Component{}
}

// supervisorID returns the process id of the supervisor on the host.
func supervisorID(t *testing.T, dir string) (pid int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "supervisor.pid"))
	if err != nil {
		t.Fatal(err)
	}
	_, numbers, _ := strings.Cut(string(b), "\n")
	if _, err := fmt.Sscan(numbers, &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// kill ends the supervisor in the worst way and waits for it.
func kill(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.PidfdOpen(supervisorID(t, dir), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30_000); n != 1 {
		t.Fatalf("the killed supervisor does not end: %v", err)
	}
}

// checkNothingLeft looks for processes and mounts of the lab. Every process of it has the folder on its command line.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		// A process may end between the two looks at it.
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(dir)) {
			t.Errorf("left behind: process %s: %q", path, b)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("left behind: a mount under %s", dir)
	}
}
