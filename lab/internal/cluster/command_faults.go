package cluster

import (
	"context"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func pauseCommand() *cobra.Command {
	return faultCommand("pause COMPONENT", "Make one process of the lab hang", `pause makes one process of the lab hang, until "varco-lab continue": the kernel still takes connections for it, and nothing
answers. "varco-lab status" lists the processes.`,
		func(ctx context.Context, c *Cluster, name string) error { return c.Signal(ctx, name, unix.SIGSTOP) })
}

func continueCommand() *cobra.Command {
	return faultCommand("continue COMPONENT", "Let a paused process of the lab go on", "continue undoes pause.",
		func(ctx context.Context, c *Cluster, name string) error { return c.Signal(ctx, name, unix.SIGCONT) })
}

func cutCommand() *cobra.Command {
	return faultCommand("cut MACHINE", "Take a machine off the network",
		`cut takes a machine, such as control-plane-1, off the network, as if its cable were pulled, until "varco-lab plug".`,
		func(_ context.Context, c *Cluster, name string) error { return c.Cut(name) })
}

func plugCommand() *cobra.Command {
	return faultCommand("plug MACHINE", "Bring a machine that was cut back to the network", "plug undoes cut.",
		func(_ context.Context, c *Cluster, name string) error { return c.Plug(name) })
}

// faultCommand is a command that does something to one part of a lab that is up.
func faultCommand(use, short, long string, do func(ctx context.Context, c *Cluster, name string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1)}
	dir := dirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := needRoot(); err != nil {
			return err
		}
		c, err := Open(*dir)
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, args[0])
	}
	return cmd
}
