// Package upstream makes commands of the real control plane: etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler, with the code of their own projects. It is the only package that imports k8s.io/kubernetes.
package upstream

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // the log format "json"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the API clients
	_ "k8s.io/component-base/metrics/prometheus/version"  // metric build_info
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// ErrFailed is returned by a command that has already logged why it ended.
var ErrFailed = errors.New("the component failed; its log says why")

// Commands returns the hidden commands etcd, kube-apiserver, kube-controller-manager and kube-scheduler. The last three
// take the flags of upstream's own binaries. hosts are further kube-apiservers, by the names of their commands, with the
// guests that they mount.
func Commands(hosts map[string]Guest) []*cobra.Command {
	// Upstream gives its flag --version to every command of a program that links it.
	if f := pflag.Lookup("version"); f != nil {
		f.Hidden = true
	}
	commands := []*cobra.Command{
		etcdCommand(),
		component("kube-apiserver", apiserver.NewAPIServerCommand),
		component("kube-controller-manager", controllermanager.NewControllerManagerCommand),
		component("kube-scheduler", func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	}
	for name, guest := range hosts {
		commands = append(commands, hostCommand(name, guest))
	}
	return commands
}

// component wraps an upstream command so that it is made only when it is asked for: each of them registers its version
// and feature gates for the whole process, and the three do not expect each other there.
func component(name string, build func() *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "Run " + name + " with the flags of its own binary",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd := build()
			cmd.SetArgs(args)
			if cli.Run(cmd) != 0 {
				return ErrFailed
			}
			return nil
		},
	}
}
