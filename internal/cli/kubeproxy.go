package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/internal/kernel"
	"varco.dev/internal/kubeproxy"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/observe"
)

// masqueradeBit is upstream's default bit of the packet mark.
const masqueradeBit = 14

// kubeProxyFlags have upstream's names and defaults.
type kubeProxyFlags struct {
	kubeconfig        string
	master            string
	hostname          string
	clusterCIDR       string
	nodePortAddresses []string
	masqueradeAll     bool
	healthAddress     string
	metricsAddress    string
	cleanup           bool
	verbosity         int
}

func kubeProxy() *cobra.Command {
	f := &kubeProxyFlags{}
	cmd := &cobra.Command{
		Use:   "kube-proxy",
		Short: "Serve Services on this node, in place of kube-proxy",
		Long: `Serve the cluster's Services on this node, in place of kube-proxy.

Connections to a ClusterIP, NodePort, external IP or load-balancer IP are sent to
a ready endpoint chosen at random, by nftables rules that this command keeps as
the API server says: TCP, UDP and SCTP, IPv4 and IPv6. A Service without
endpoints refuses connections.

When it ends, the rules stay and traffic goes on; --cleanup removes them (stop it
first, or the next change brings them back).
It needs root (or the capability NET_ADMIN) and Linux 5.13 or later.`,
		Example: `  # with the credentials of the pod it runs in
  varco kube-proxy --cluster-cidr 10.244.0.0/16

  # on a node, with a kubeconfig
  varco kube-proxy --kubeconfig /var/lib/kube-proxy/kubeconfig --hostname-override node-1

  # remove everything it has put into the kernel
  varco kube-proxy --cleanup`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	f.add(cmd)
	return cmd
}

func (f *kubeProxyFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "path of the kubeconfig with the API server and the credentials (default: those of the pod)")
	flags.StringVar(&f.master, "master", "", "address of the API server, instead of the kubeconfig's")
	flags.StringVar(&f.hostname, "hostname-override", "", "name of this node's Node object (default: the host name)")
	flags.StringVar(&f.clusterCIDR, "cluster-cidr", "", "networks of the pods, one per IP family, separated by commas; traffic to a ClusterIP from elsewhere is masqueraded (default: none is)")
	flags.StringSliceVar(&f.nodePortAddresses, "nodeport-addresses", []string{"primary"}, "where NodePorts are served: \"primary\" (the Node object's addresses), \"all\", or networks of local addresses")
	flags.BoolVar(&f.masqueradeAll, "masquerade-all", false, "masquerade all traffic to ClusterIPs")
	flags.StringVar(&f.healthAddress, "healthz-bind-address", "0.0.0.0:10256", "where /healthz, /livez and /readyz are served (empty: nowhere)")
	flags.StringVar(&f.metricsAddress, "metrics-bind-address", "127.0.0.1:10249", "where /metrics is served (empty: nowhere)")
	flags.BoolVar(&f.cleanup, "cleanup", false, "remove all nftables rules of this command, and exit")
	flags.IntVarP(&f.verbosity, "v", "v", 2, "verbosity of the log; from 4 on, single objects are logged")
}

func (f *kubeProxyFlags) run(ctx context.Context) error {
	log := observe.NewLog(os.Stderr, f.verbosity)
	if f.cleanup {
		return nft.NewNetlink(nft.Config{}).Cleanup(ctx)
	}
	conf, kernelConf, err := f.config()
	if err != nil {
		return err
	}
	log = log.With("component", "kube-proxy", "node", conf.NodeName)
	log.Info("starting", "version", version(), "families", fmt.Sprint(kernelConf.Families), "cluster-cidr", kernelConf.ClusterCIDRs)
	nftables := nft.NewNetlink(kernelConf)
	conf.Plane, conf.Check, conf.Log = nft.New(nftables), nftables.Check, log
	return kubeproxy.New(conf).Run(ctx)
}

// config checks all flags before anything is done.
func (f *kubeProxyFlags) config() (c kubeproxy.Config, k nft.Config, err error) {
	k = nft.Config{Families: kernel.Families(), MasqueradeMark: 1 << masqueradeBit, MasqueradeAll: f.masqueradeAll}
	if k.ClusterCIDRs, err = parseCIDRs(f.clusterCIDR); err != nil {
		return c, k, fmt.Errorf("--cluster-cidr: %w", err)
	}
	if c.NodePorts, err = kubeproxy.ParseNodePortAddresses(f.nodePortAddresses); err != nil {
		return c, k, fmt.Errorf("--nodeport-addresses: %w", err)
	}
	for flag, address := range map[string]string{"healthz": f.healthAddress, "metrics": f.metricsAddress} {
		if err := checkAddress(address); err != nil {
			return c, k, fmt.Errorf("--%s-bind-address: %w", flag, err)
		}
	}
	c.HealthAddress, c.MetricsAddress = f.healthAddress, f.metricsAddress
	if c.NodeName, err = f.nodeName(); err != nil {
		return c, k, err
	}
	c.Client, err = f.client()
	return c, k, err
}

// checkAddress refuses what can never be listened at. Empty is allowed: nothing is served then.
func checkAddress(address string) error {
	if address == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address and port such as 0.0.0.0:10256", address)
	}
	return nil
}

// nodeName is formed as kubelet forms the name of its Node.
func (f *kubeProxyFlags) nodeName() (string, error) {
	name := f.hostname
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("find the host name (give it with --hostname-override): %w", err)
		}
	}
	if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
		return "", errors.New("the host name is empty: give this node's name with --hostname-override")
	}
	return name, nil
}

func (f *kubeProxyFlags) restConfig() (*rest.Config, error) {
	if f.kubeconfig == "" && f.master == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags(f.master, f.kubeconfig)
}

func (f *kubeProxyFlags) client() (kubernetes.Interface, error) {
	config, err := f.restConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server (give --kubeconfig, or run in a pod): %w", err)
	}
	config.UserAgent = "varco-kube-proxy/" + version()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to the API server: %w", err)
	}
	return client, nil
}

// parseCIDRs reads one network of each IP family at most.
func parseCIDRs(list string) (out []netip.Prefix, err error) {
	if list == "" {
		return nil, nil
	}
	for s := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is not a network such as 10.244.0.0/16", s)
		}
		for _, q := range out {
			if q.Addr().Is4() == p.Addr().Is4() {
				return nil, fmt.Errorf("%s and %s are of the same IP family: give one of each", q, p)
			}
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
