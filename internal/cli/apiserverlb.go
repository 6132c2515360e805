//go:build linux

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/apiserverlb/config"
)

func apiserverLB() *cobra.Command {
	f := &apiserverLBFlags{}
	cmd := &cobra.Command{
		Use:   "apiserver-lb",
		Short: "Balance clients over the API servers of a cluster",
		Long: `Balance clients over the API servers of a cluster, on hosts of their own or on every node.

TLS goes through from end to end, so client certificates work. Connections to API
servers that hang or vanish are ended within seconds, those to API servers that are
about to end are moved, and when one comes back, connections are evened out.

SIGHUP, and every change of the file, has the configuration read again; connections
go on. SIGTERM ends in order. With a hand-over socket, a new process takes over from
the old one without a refused connection.

With https.apiserverProxy in the file, the flags of varco apiserver-proxy front about
targets, kubelets, limits and audit are taken as well.`,
		Example: `  # on each node, for kubelet and kube-proxy: the API servers are asked which ones there are
  varco apiserver-lb --listen 127.0.0.1:6443 --backend 10.0.0.1:6443 --backend 10.0.0.2:6443 --backend 10.0.0.3:6443 \
    --ca-file /etc/kubernetes/pki/ca.crt --kubeconfig /etc/kubernetes/apiserver-lb.conf --cache-file /var/lib/varco/apiserver-lb.json

  # with a file, which is read again when it changes
  varco apiserver-lb --config /etc/varco/apiserver-lb.yaml

  # whether a file is right
  varco apiserver-lb --config /etc/varco/apiserver-lb.yaml --check`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().SetNormalizeFunc(dashes)
	f.add(cmd.Flags())
	cmd.AddCommand(apiserverLBStatus())
	return cmd
}

// statusTimeout bounds the question to a running balancer.
const statusTimeout = 10 * time.Second

func apiserverLBStatus() *cobra.Command {
	address, output := "", outputFlag{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the backends of the balancer of this machine",
		Long: `Show the backends of the balancer of this machine: their states and why, how many
connections each has, and what was retried and moved.`,
		Example: `  varco apiserver-lb status
  varco apiserver-lb status --metrics-address 10.0.0.9:9444 --output json`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, "http://"+address+"/status", nil)
			if err != nil {
				return fmt.Errorf("--metrics-address: %w", err)
			}
			resp, err := (&http.Client{Timeout: statusTimeout}).Do(q)
			if err != nil {
				return fmt.Errorf("ask the balancer (is it running, with metricsAddress %s?): %w", address, err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("ask the balancer at %s: it answers %s", address, resp.Status)
			}
			var status apiserverlb.Status
			if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
				return fmt.Errorf("read what the balancer at %s says: %w", address, err)
			}
			return output.write(cmd.OutOrStdout(), status, func(w io.Writer) error { return apiserverlb.WriteTable(w, status, time.Now()) })
		},
	}
	cmd.Flags().StringVar(&address, "metrics-address", config.Default().MetricsAddress, "metricsAddress of the balancer")
	output.add(cmd.Flags())
	return cmd
}
