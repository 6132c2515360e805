package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"varco.dev/internal/nettest"
)

// sandbox is the network of one pod.
type sandbox struct {
	ns   *nettest.Namespace
	ips  []netip.Addr // the pod's, IPv4 first
	own  bool         // not the node's namespace
	host int          // number in the pod networks, if own
	adr  *addresses   // where the number is from
	sandboxRecord
}

// sandboxRecord is what the next agent must know to remove what a killed one left behind.
type sandboxRecord struct {
	Path string // file that the namespace is bound to
	Link string // the node's end of the veth pair
	// Inode is the namespace's: the file at Path may be that of a later pod of the name on another node, as all nodes
	// share the folder. 0 if there is no namespace yet.
	Inode uint64
}

// addSandbox makes the network namespace of a pod and joins it to the node.
func (a *Agent) addSandbox(pod *v1.Pod, adr *addresses) (s *sandbox, err error) {
	if pod.Spec.HostNetwork {
		return &sandbox{ns: a.cfg.Namespace, ips: a.cfg.NodeIPs}, nil
	}
	host, err := adr.take()
	if err != nil {
		return nil, err
	}
	s = &sandbox{own: true, host: host, adr: adr, sandboxRecord: sandboxRecord{
		Path: filepath.Join(a.cfg.NetnsDir, pod.Namespace+"_"+pod.Name),
		Link: linkName(pod),
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.removeSandbox(s))
		}
	}()
	if s.ns, err = nettest.NewNamespace(pod.Namespace + "/" + pod.Name); err != nil {
		return s, err
	}
	if s.Inode, err = inodeOf(fmt.Sprintf("/proc/self/fd/%d", s.ns.FD())); err != nil {
		return s, err
	}
	if err = writeRecord(a.podDir(pod.UID), s.sandboxRecord); err != nil {
		return s, err
	}
	// Unprivileged containers may ping and listen on low ports, as containerd lets them.
	if err = s.ns.Sysctl("net.ipv4.ip_unprivileged_port_start", "0"); err != nil {
		return s, err
	}
	addrs := adr.nets.Host(host)
	s.ips = addrs.Addrs()
	if err = nettest.AddPod(a.cfg.Namespace, s.ns, s.Link, addrs, adr.gateway()); err != nil {
		return s, err
	}
	// An earlier pod of the name may still be there, on another node: the name is this one's now.
	if _, err = os.Lstat(s.Path); err == nil {
		_ = nettest.Unbind(s.Path) // Bind says it if this failed
	}
	return s, s.ns.Bind(s.Path)
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("read inode of %s: %w", path, err)
	}
	return st.Ino, nil
}

// removeSandbox undoes addSandbox, also a half of it.
func (a *Agent) removeSandbox(s *sandbox) error {
	if !s.own {
		return nil
	}
	defer s.adr.release(s.host)
	err := a.removeRecorded(s.sandboxRecord)
	if s.ns != nil {
		err = errors.Join(err, s.ns.Close())
	}
	return err
}

// removeRecorded removes the link and the file of a sandbox; what is not there, or is another's, is fine.
func (a *Agent) removeRecorded(r sandboxRecord) error {
	// The link's end fails if it was never made. Where it was, removing it ends the pod's routes at once; the kernel
	// would remove it with the namespace, but only some time later.
	_ = a.cfg.Namespace.DelLink(r.Link)
	if inode, err := inodeOf(r.Path); err != nil || inode != r.Inode {
		return nil
	}
	if err := nettest.Unbind(r.Path); err != nil {
		if err := os.Remove(r.Path); err != nil {
			return fmt.Errorf("remove network namespace file: %w", err)
		}
	}
	return nil
}

func writeRecord(dir string, r sandboxRecord) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "sandbox.json"), b, 0o644)
}

// removeLeftovers removes what an agent that was killed left of its pods. Their processes died with it.
func (a *Agent) removeLeftovers() error {
	dirs, err := filepath.Glob(filepath.Join(a.cfg.Dir, "pods", "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		var r sandboxRecord
		if b, err := os.ReadFile(filepath.Join(dir, "sandbox.json")); err == nil && json.Unmarshal(b, &r) == nil {
			if err := a.removeRecorded(r); err != nil {
				a.cfg.Log.Warn("network of an earlier agent's pod not removed", "err", err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			a.cfg.Log.Warn("folder of an earlier agent's pod not removed", "err", err)
		}
	}
	return nil
}

// linkName names the node's end of a pod's veth pair, within the 15 characters of an interface name.
func linkName(pod *v1.Pod) string {
	h := fnv.New32a()
	h.Write([]byte(pod.UID))
	return fmt.Sprintf("pod%08x", h.Sum32())
}
