package controlplane

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What of the lab is varco apiserver-lb's.
const (
	BalancerName = "apiserver-lb"       // of its machine, and of the component
	BalancerUser = "varco-apiserver-lb" // whom its kubeconfig is for
	// BalancerNumber is the number of its machine in nettest.NodeNet: between control planes and nodes.
	BalancerNumber = 10
	// BalancerMetricsPort is the port of all its addresses at which it serves metrics and its status.
	BalancerMetricsPort = 9444
)

// BalancerConfig is the path of the configuration of varco apiserver-lb.
func (l Layout) BalancerConfig() string { return l.balancerFile("config.yaml") }

func (l Layout) balancerFile(name string) string { return filepath.Join(l.Dir, BalancerName, name) }

func (l Layout) balancer() Component {
	return Component{
		Name:  BalancerName,
		Host:  *l.Balancer,
		Args:  []string{"apiserver-lb", "--config=" + l.BalancerConfig()},
		Varco: true,
		Ready: l.Balancer.url(APIServerPort) + "/readyz",
		CA:    l.pki("ca.crt"),
		Cert:  l.pki("apiserver-kubelet-client.crt"),
		Key:   l.pki("apiserver-kubelet-client.key"),
	}
}

// balancerFormat is the configuration: the folder of its files stands for %[1]s, the list of API servers for %[2]s.
const balancerFormat = `apiVersion: apiserverlb.varco.dev/v1alpha1
kind: APIServerLBConfiguration
listeners:
- name: all
  address: "[::]:6443"
backends:
  static: [%[2]s]
  kubernetes: {kubeconfig: %[1]s/kubeconfig}
  cacheFile: %[1]s/backends.json
health:
  caFile: %[3]s
rebalance: {percentPerSecond: 3} # a lab has few connections, and little time
drain: {timeout: 5s}
metricsAddress: "[::]:9444"
handoverSocket: %[1]s/handover.sock
`

// BalancerText is a configuration of varco apiserver-lb with the given addresses, host:port, to begin with.
func (l Layout) BalancerText(static []string) string {
	quoted := make([]string, len(static))
	for i, s := range static {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf(balancerFormat, filepath.Dir(l.BalancerConfig()), strings.Join(quoted, ", "), l.ClientCA())
}

// Servers are the addresses of all API servers, host:port.
func (l Layout) Servers() (addresses []string) {
	for _, h := range l.ControlPlanes {
		addresses = append(addresses, fmt.Sprintf("%s:%d", h.Addrs[0], APIServerPort))
	}
	return addresses
}

func (l Layout) writeBalancer() error {
	if l.Balancer == nil {
		return nil
	}
	return os.WriteFile(l.BalancerConfig(), []byte(l.BalancerText(l.Servers())), 0o600)
}
