// Command varco-lab is a Kubernetes cluster on one machine, in network namespaces.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"varco.dev/lab/internal/cluster"
	"varco.dev/lab/internal/controlplane"
	"varco.dev/lab/internal/demo"
	"varco.dev/lab/internal/echo"
	"varco.dev/lab/internal/mount"
	"varco.dev/lab/internal/node"
	"varco.dev/lab/internal/upstream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:   "varco-lab",
		Short: "A Kubernetes cluster on one machine, in network namespaces",
		Long: `varco-lab runs a Kubernetes cluster on this machine: a real control plane (etcd, kube-apiserver,
kube-controller-manager, kube-scheduler) and nodes that are network namespaces. It needs root and no other
program, and changes nothing outside its own namespaces and its folder.`,
		Example: `  varco-lab up                                     start a cluster of three nodes
  varco-lab kubeconfig > lab.kubeconfig            then: kubectl --kubeconfig lab.kubeconfig get nodes
  varco-lab status                                 components, nodes and pods
  varco-lab exec node-1 -- cat /proc/net/route
  varco-lab down                                   end it and remove what it made`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(cluster.Commands()...)
	root.AddCommand(demo.Command(), demo.RequestCommand(), echo.Command(), echo.PorterCommand(), node.Command())
	root.AddCommand(upstream.Commands(map[string]upstream.Guest{controlplane.HostCommand: &mount.APIServerProxy{}})...)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "varco-lab:", err)
		stop()
		os.Exit(1)
	}
}
