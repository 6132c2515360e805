//go:build linux

package cli

import (
	"github.com/spf13/cobra"

	"varco.dev/internal/apiserverproxy/server"
)

func apiserverProxy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apiserver-proxy",
		Short: "Serve the proxy subresources of nodes, pods and Services, in place of kube-apiserver's",
		Long: `Serve the proxy subresources of nodes, pods and Services, in place of kube-apiserver's:
the same URLs, permissions and answers, with balancing over all ready endpoints,
retries, affinity, streaming, verified TLS, and a guard of the addresses dialled.

It runs in front of an API server, or as an API that the API server aggregates.`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(apiserverProxyFront(), apiserverProxyAggregated())
	return cmd
}

func apiserverProxyFront() *cobra.Command {
	f, options := &apiserverProxyFlags{}, server.NewFrontOptions()
	cmd := &cobra.Command{
		Use:   "front",
		Short: "Serve HTTPS in front of an API server: the proxy paths here, all else passed on",
		Long: `Serve HTTPS in front of an API server. The proxy subresources are served here; all else
is passed on: watches, exec, attach, port-forward, HTTP/2.

Clients are who they are at the API server: tokens are passed on as they are, and who
has a client certificate is told to the API server in X-Remote-… headers, by the
front-proxy certificate. Identity headers that clients send are dropped.`,
		Example: `  # in a pod on a control plane node, with the certificates of kubeadm in this folder
  varco apiserver-proxy front --secure-port 7443 \
    --tls-cert-file apiserver.crt --tls-private-key-file apiserver.key \
    --proxy-client-cert-file front-proxy-client.crt --proxy-client-key-file front-proxy-client.key \
    --kubelet-client-certificate apiserver-kubelet-client.crt --kubelet-client-key apiserver-kubelet-client.key

  # also to a Service without selector, whose endpoints are not in the cluster
  varco apiserver-proxy front --kubeconfig front.kubeconfig --allow-cidr 192.0.2.0/24`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.front(cmd.Context(), cmd.ErrOrStderr(), options) },
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().SetNormalizeFunc(dashes)
	f.addFlags(cmd.Flags())
	options.AddFlags(cmd.Flags())
	return cmd
}

func apiserverProxyAggregated() *cobra.Command {
	f, options := &apiserverProxyFlags{}, server.NewOptions()
	cmd := &cobra.Command{
		Use:   "aggregated",
		Short: "Serve the API group proxy.varco.dev, for the API server to aggregate",
		Long: `Serve the API group proxy.varco.dev, for an API server to aggregate: an APIService
v1.proxy.varco.dev leads there. Users ask for
/apis/proxy.varco.dev/v1/namespaces/NAMESPACE/services/ID/proxy/PATH at the API
server's own address; they need the permission for services/proxy in both groups,
this one and the core group.`,
		Example: `  # in a pod, behind the Service of the APIService
  varco apiserver-proxy aggregated --secure-port 7443 --tls-cert-file tls.crt --tls-private-key-file tls.key`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.aggregated(cmd.Context(), cmd.ErrOrStderr(), options)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().SetNormalizeFunc(dashes)
	f.addFlags(cmd.Flags())
	options.AddFlags(cmd.Flags())
	return cmd
}
