package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
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

When it ends, the rules stay and traffic goes on; --cleanup removes them.
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
	cidrs, err := parseCIDRs(f.clusterCIDR)
	if err != nil {
		return fmt.Errorf("--cluster-cidr: %w", err)
	}
	ports, err := kubeproxy.ParseNodePortAddresses(f.nodePortAddresses)
	if err != nil {
		return fmt.Errorf("--nodeport-addresses: %w", err)
	}
	nftables := nft.NewNetlink(nft.Config{
		Families:       kernel.Families(),
		MasqueradeMark: 1 << masqueradeBit,
		MasqueradeAll:  f.masqueradeAll,
		ClusterCIDRs:   cidrs,
	})
	if f.cleanup {
		return nftables.Cleanup(ctx)
	}
	name, err := f.nodeName()
	if err != nil {
		return err
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	return kubeproxy.New(kubeproxy.Config{
		Client:         client,
		NodeName:       name,
		Plane:          nft.New(nftables),
		Check:          nftables.Check,
		NodePorts:      ports,
		HealthAddress:  f.healthAddress,
		MetricsAddress: f.metricsAddress,
		Log:            log.With("component", "kube-proxy", "node", name),
	}).Run(ctx)
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

func (f *kubeProxyFlags) client() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags(f.master, f.kubeconfig)
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

func parseCIDRs(list string) (out []netip.Prefix, err error) {
	if list == "" {
		return nil, nil
	}
	for s := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 10.244.0.0/16", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
