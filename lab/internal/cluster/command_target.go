package cluster

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func execCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec TARGET -- COMMAND [ARG…]",
		Short: "Run a program in a network namespace of the lab",
		Long: `exec runs a program of this machine in the network namespace of TARGET: a machine of the lab (node-1,
control-plane-0, router, client) or a pod (NAMESPACE/POD, or POD for one in the namespace default). Only the
network is TARGET's; files and processes are this machine's. The exit code is the program's.`,
		Example: `  varco-lab exec node-1 -- cat /proc/net/route
  varco-lab exec node-1 -- nft list ruleset
  varco-lab exec kube-system/my-pod -- sh`,
		Args:                  checkExec,
		DisableFlagsInUseLine: true,
	}
	dir := dirFlag(cmd)
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := needRoot(); err != nil {
			return err
		}
		c, err := Open(*dir)
		if err != nil {
			return err
		}
		return c.Exec(args[0], execArgv(args))
	}
	return cmd
}

// execArgv returns what to run: the arguments after TARGET and "--".
func execArgv(args []string) []string {
	if len(args) > 1 && args[1] == "--" {
		return args[2:]
	}
	return args[1:]
}

func checkExec(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no target and no command to run there; for example: %s node-1 -- ip address", cmd.CommandPath())
	}
	if len(execArgv(args)) == 0 {
		return fmt.Errorf("no command to run in %s; for example: %s %s -- ip address", args[0], cmd.CommandPath(), args[0])
	}
	return nil
}

// defaultGrace is how long a component may take to end when a person stops it.
const defaultGrace = 10 * time.Second

func stopCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop COMPONENT",
		Short: "Stop one process of the lab, such as kube-apiserver or node-1",
		Long: `stop ends one process of the lab, to see what the others do without it. "varco-lab status" lists them,
"varco-lab start" starts it again. The pods of a node end with its agent.`,
		Args: cobra.ExactArgs(1),
	}
	dir := dirFlag(cmd)
	grace := cmd.Flags().Duration("grace", defaultGrace, "time between SIGTERM and SIGKILL; 0 kills at once")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := Open(*dir)
		if err != nil {
			return err
		}
		return c.Stop(cmd.Context(), args[0], *grace)
	}
	return cmd
}

func startCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start COMPONENT",
		Short: "Start a process of the lab that was stopped or has ended",
		Args:  cobra.ExactArgs(1),
	}
	dir := dirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := Open(*dir)
		if err != nil {
			return err
		}
		return c.Start(cmd.Context(), args[0])
	}
	return cmd
}
