//go:build linux

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"varco.dev/internal/kubeproxy/config"
)

func kubeProxy() *cobra.Command {
	f := &kubeProxyFlags{options: config.NewOptions()}
	cmd := &cobra.Command{
		Use:   "kube-proxy",
		Short: "Serve Services on this node, in place of kube-proxy",
		Long: `Serve the cluster's Services on this node, in place of kube-proxy.

Connections to a ClusterIP, NodePort, external IP or load-balancer IP are sent to
a ready endpoint chosen at random, by nftables rules that this command keeps as
the API server says: TCP, UDP and SCTP, IPv4 and IPv6. A Service without
endpoints refuses connections.

It takes kube-proxy's flags and its file, a KubeProxyConfiguration, as they are.
Flags of kube-proxy that are not listed below are accepted: the deprecated ones
work, the others have no effect.

When it ends, the rules stay and traffic goes on; --cleanup removes them (stop it
first, or the next change brings them back).
It needs root (or the capability NET_ADMIN) and Linux 5.13 or later.`,
		Example: `  # with the credentials of the pod it runs in
  varco kube-proxy --cluster-cidr 10.244.0.0/16

  # with the file that kubeadm has made for kube-proxy
  varco kube-proxy --config /var/lib/kube-proxy/config.conf --hostname-override node-1

  # on a node, with a kubeconfig
  varco kube-proxy --kubeconfig /var/lib/kube-proxy/kubeconfig --hostname-override node-1

  # show what a file means, with all defaults
  varco kube-proxy --config config.conf --write-config-to /dev/stdout

  # remove everything it has put into the kernel
  varco kube-proxy --cleanup`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.execute(cmd.Context(), cmd.OutOrStdout()) },
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().SetNormalizeFunc(dashes)
	f.options.AddFlags(cmd.Flags())
	cmd.AddCommand(kubeProxyStatus(), kubeProxyExplain())
	return cmd
}

// noWords refuses arguments but empty ones, which a manifest has where a variable is empty; kube-proxy bears them too.
func noWords(cmd *cobra.Command, args []string) error {
	for _, a := range args {
		if a != "" {
			return fmt.Errorf("unknown command %q for %q", a, cmd.CommandPath())
		}
	}
	return nil
}
