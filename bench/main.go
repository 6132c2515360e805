// Command varco-bench measures Varco's proxies side by side with the programs that they take the place of.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"varco.dev/bench/internal/apiserverlb"
	"varco.dev/bench/internal/apiserverproxy"
	"varco.dev/bench/internal/kubectlproxy"
	"varco.dev/bench/internal/kubeproxy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "varco-bench",
		Short:         "Measure Varco's proxies beside the programs that they take the place of",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(apiserverlb.Command(), apiserverproxy.Command(), kubectlproxy.Command(), kubeproxy.Command())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "varco-bench:", err)
		os.Exit(1)
	}
}
