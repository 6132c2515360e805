// Package controlplane knows what a control plane is made of: the certificates and kubeconfigs of all components, their
// flags, the order in which they start and how to tell that one is ready. It starts no process itself.
package controlplane

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"varco.dev/internal/nettest"
)

// Address ranges of the cluster.
var (
	ServiceNet = nettest.Dual{V4: netip.MustParsePrefix("10.96.0.0/16"), V6: netip.MustParsePrefix("fd00:96::/112")}
	// podMask are the lengths of each node's part of nettest.PodNet.
	podMask = struct{ v4, v6 int }{24, 64}
)

// Ports of the components, upstream's defaults.
const (
	APIServerPort         = 6443
	etcdPort              = 2379
	controllerManagerPort = 10257
	schedulerPort         = 10259
)

// FirstControlPlane is the number in nettest.NodeNet of the first control plane. The numbers of others follow.
const FirstControlPlane = 2

// Issuer of service-account tokens.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// Host is a machine of the lab. Addrs are IPv4, then IPv6.
type Host struct {
	Name  string
	Addrs []netip.Addr
}

// NewHost returns the machine with the given host number in nettest.NodeNet.
func NewHost(name string, number int) Host {
	return Host{Name: name, Addrs: nettest.NodeNet.Host(number).Addrs()}
}

// APIServer is the URL of the API server on the machine, by its IPv4 address.
func (h Host) APIServer() string { return h.url(APIServerPort) }

// url of a server on the machine, by its IPv4 address.
func (h Host) url(port int) string {
	return "https://" + netip.AddrPortFrom(h.Addrs[0], uint16(port)).String()
}

// Layout says where the files of a cluster are and which machines it has. The first control plane runs etcd.
type Layout struct {
	// Dir is the folder of all files, an absolute path.
	Dir           string
	ControlPlanes []Host
	Nodes         []Host
	// Hosts are how many API servers, from the first on, mount varco apiserver-proxy in their own process.
	Hosts int
	// LocalPort is the port of 127.0.0.1 at which the host of the lab reaches the API servers.
	LocalPort int
	// Balancer is the machine of varco apiserver-lb, by way of which all clients reach the API servers; nil if there is
	// none.
	Balancer *Host
	// ShutdownDelay is how long an API server that is told to end still serves, with /readyz red.
	ShutdownDelay time.Duration
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (l Layout) Kubeconfig() string { return filepath.Join(l.Dir, "kubeconfig") }

// ClientCA is the path of the certificate authority of the cluster.
func (l Layout) ClientCA() string { return l.pki("ca.crt") }

// NodeDir is the folder of a node's files: kubeconfig, kubelet.crt, kubelet.key and what its agent stores.
func (l Layout) NodeDir(node string) string { return filepath.Join(l.Dir, "nodes", node) }

// Entries are the names of what a cluster has in its folder.
func (l Layout) Entries() []string {
	names := []string{"kubeconfig", "pki", "etcd", "nodes", BalancerName}
	for _, h := range l.ControlPlanes {
		names = append(names, h.Name)
	}
	return names
}

func (l Layout) pki(name string) string { return filepath.Join(l.Dir, "pki", name) }

// hostDir is the folder of the files that only one control plane has.
func (l Layout) hostDir(h Host) string { return filepath.Join(l.Dir, h.Name) }

// componentKubeconfig is the path of the kubeconfig of kube-controller-manager or kube-scheduler.
func (l Layout) componentKubeconfig(h Host, component string) string {
	return filepath.Join(l.hostDir(h), component+".kubeconfig")
}

// APIServerFor is the machine that node number i asks: the balancer, or else nodes spread over the control planes.
func (l Layout) APIServerFor(i int) Host { return l.by(l.ControlPlanes[i%len(l.ControlPlanes)]) }

// by is the machine that a client of the API server on h asks.
func (l Layout) by(h Host) Host {
	if l.Balancer != nil {
		return *l.Balancer
	}
	return h
}

// check tells of a layout that cannot work.
func (l Layout) check() error {
	if !filepath.IsAbs(l.Dir) {
		return fmt.Errorf("folder %q of the cluster is not an absolute path", l.Dir)
	}
	if len(l.ControlPlanes) == 0 {
		return fmt.Errorf("the cluster in %s has no control plane", l.Dir)
	}
	return nil
}
