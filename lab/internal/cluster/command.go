package cluster

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"varco.dev/lab/internal/controlplane"
)

// Commands returns the verbs of varco-lab: up, down, status, kubeconfig, exec, stop, start, pause,
// continue, cut and plug, and the hidden command of the supervisor.
func Commands() []*cobra.Command {
	return []*cobra.Command{upCommand(), downCommand(), statusCommand(), kubeconfigCommand(), execCommand(),
		stopCommand(), startCommand(), pauseCommand(), continueCommand(), cutCommand(), plugCommand(), superviseCmd()}
}

func dirFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("dir", DefaultDir, "folder of the lab's state; one lab per folder")
}

func upCommand() *cobra.Command {
	var cfg Config
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster and return when its nodes are ready",
		Long: `up starts a cluster and returns when its nodes are ready. The cluster goes on in the background until
"varco-lab down". What a killed lab left in the folder is removed first.

Images are programs of this machine. lab/echo, a test server, is built in; --image adds others. Pods of any
other image wait, and their status says why.`,
		Example: `  varco-lab up
  varco-lab up --nodes 5 --apiservers 3
  varco-lab up --apiserver-proxy
  varco-lab up --apiservers 3 --apiserver-lb bin/varco
  varco-lab up --image varco=/usr/local/bin/varco`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd, cfg) },
	}
	fs := cmd.Flags()
	fs.StringVar(&cfg.Dir, "dir", DefaultDir, "folder of the lab's state; one lab per folder")
	fs.IntVar(&cfg.Nodes, "nodes", DefaultNodes, fmt.Sprintf("number of nodes, 0 to %d", maxNodes))
	fs.IntVar(&cfg.APIServers, "apiservers", 1, fmt.Sprintf("number of control planes, 1 to %d, each with its own address", maxControlPlanes))
	fs.StringVar(&cfg.APIServerProxy, "apiserver-proxy", "", `serve the API's proxy subresources by varco apiserver-proxy in the API servers' process:
in "all" of them, also if no value is given, or in the "first" alone, to compare it with the others`)
	fs.Lookup("apiserver-proxy").NoOptDefVal = ProxyOfAll
	fs.StringVar(&cfg.APIServerLB, "apiserver-lb", "", `reach the API servers by way of varco apiserver-lb, which runs on a machine of its own; the value is the program varco`)
	fs.DurationVar(&cfg.ShutdownDelay, "shutdown-delay", 0, "how long an API server that is told to end still serves, with /readyz red")
	fs.StringArrayVar(&cfg.Images, "image", nil, "program that stands for an image, as `NAME=PATH[,ARG…]`; repeatable")
	fs.DurationVar(&cfg.Timeout, "timeout", DefaultTimeout, "how long the start may take")
	return cmd
}

func runUp(cmd *cobra.Command, cfg Config) error {
	start := time.Now()
	printer := NewPrinter(os.Stdout, term.IsTerminal(int(os.Stdout.Fd())))
	if err := printer.Up(cmd.Context(), cfg); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	number := controlplane.FirstControlPlane
	if cfg.APIServerLB != "" {
		number = controlplane.BalancerNumber
	}
	fmt.Fprintf(out, "\nThe cluster is up after %.1f s; its API server is %s for what runs in it. Next:\n",
		time.Since(start).Seconds(), controlplane.NewHost("", number).APIServer())
	for _, next := range [][2]string{
		{"kubeconfig > lab.kubeconfig", "use it with kubectl --kubeconfig lab.kubeconfig"},
		{"status", "components, nodes and pods"},
		{"exec client -- COMMAND", "run a program in a network namespace of the lab"},
		{"down", "end it"},
	} {
		fmt.Fprintf(out, "  %-50s %s\n", Verb(cfg.Dir, next[0]), next[1])
	}
	return nil
}

// Verb is how to call this program for the lab in the folder: name is a command, with its arguments.
func Verb(dir, name string) string {
	if dir != DefaultDir {
		command, rest, _ := strings.Cut(name, " ")
		name = strings.TrimSpace(command + " --dir " + dir + " " + rest)
	}
	return os.Args[0] + " " + name
}

func downCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End the cluster and remove everything that it made",
		Long: `down ends the cluster and removes its folder. Doing it twice is no error. It removes no folder that no lab
made.`,
		Args: cobra.NoArgs,
	}
	dir := dirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		removed, err := Down(cmd.Context(), *dir)
		if err == nil && !removed {
			fmt.Fprintf(cmd.OutOrStdout(), "There is no lab in %s.\n", *dir)
		}
		return err
	}
	return cmd
}

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show components, nodes and pods", Args: cobra.NoArgs}
	dir := dirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := Open(*dir)
		if err != nil {
			return err
		}
		status, err := c.Status(cmd.Context())
		if len(status.Components) > 0 {
			if err := status.Write(os.Stdout); err != nil {
				return err
			}
		}
		return err
	}
	return cmd
}

func kubeconfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the administrator's kubeconfig",
		Long: `kubeconfig prints the administrator's kubeconfig. It holds the certificates themselves and names the API
server by an address of this machine, so it may be stored anywhere and serves until the cluster ends.`,
		Args: cobra.NoArgs,
	}
	dir := dirFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		c, err := Open(*dir)
		if err != nil {
			return err
		}
		b, err := c.Kubeconfig()
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(b)
		return err
	}
	return cmd
}

func superviseCmd() *cobra.Command {
	cmd := &cobra.Command{Use: superviseCommand, Short: "Run the processes of a lab", Hidden: true, Args: cobra.NoArgs}
	dir := dirFlag(cmd)
	lockFD := cmd.Flags().Int("lock-fd", 0, "number of the inherited file that claims the folder")
	stepsFD := cmd.Flags().Int("steps-fd", 0, "number of the inherited file to tell progress to")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		lock, out := os.NewFile(uintptr(*lockFD), pidFile), os.NewFile(uintptr(*stepsFD), "steps")
		return supervise(cmd.Context(), *dir, lock, out)
	}
	return cmd
}
