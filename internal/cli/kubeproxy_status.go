//go:build linux

package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/kubeproxy/inspect"
)

// inspectFlags are those of the commands that ask a running kube-proxy.
type inspectFlags struct {
	outputFlag
	socket string
	from   string
}

func (f *inspectFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.socket, "status-socket", config.DefaultStatusSocket, "where the kube-proxy of this node listens")
	f.outputFlag.add(cmd.Flags())
}

func kubeProxyStatus() *cobra.Command {
	f := &inspectFlags{}
	cmd := &cobra.Command{
		Use:   "status [NAMESPACE[/SERVICE]]",
		Short: "Show the Services that the kube-proxy of this node serves",
		Long: `Show the Services that the kube-proxy of this node serves: their frontends, how
many backends each has, whether the last change is applied, and what was counted.`,
		Example: `  varco kube-proxy status
  varco kube-proxy status kube-system/kube-dns
  varco kube-proxy status --output yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := inspect.FetchStatus(cmd.Context(), f.socket)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if status = status.Of(args[0]); len(status.Ports) == 0 {
					return fmt.Errorf("kube-proxy knows no Service %s with a ClusterIP", args[0])
				}
			}
			return f.write(cmd.OutOrStdout(), status, func(w io.Writer) error {
				return inspect.WriteTable(w, status, time.Now())
			})
		},
	}
	f.add(cmd)
	return cmd
}

func kubeProxyExplain() *cobra.Command {
	f := &inspectFlags{}
	cmd := &cobra.Command{
		Use:   "explain ADDRESS:PORT[/PROTOCOL]",
		Short: "Tell what the kube-proxy of this node does with a connection",
		Long: `Tell what the kube-proxy of this node does with a new connection to an address:
which Service it belongs to, which policy applies, which endpoints it may reach,
and why the others were left out. The protocol is tcp, udp or sctp; tcp if none is
given.`,
		Example: `  varco kube-proxy explain 10.96.0.10:53/udp
  varco kube-proxy explain 192.0.2.7:30080 --from 203.0.113.9`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := inspect.ParseQuery(args[0], f.from)
			if err != nil {
				return err
			}
			explanation, err := inspect.FetchExplanation(cmd.Context(), f.socket, query)
			if err != nil {
				return err
			}
			return f.write(cmd.OutOrStdout(), explanation, func(w io.Writer) error {
				return inspect.WriteExplanation(w, explanation)
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.from, "from", "", "address of the client (default: one outside of the cluster)")
	return cmd
}
