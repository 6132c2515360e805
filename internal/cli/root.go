// Package cli is the command line: files named after their command, from flags to a Config to Run.
package cli

import (
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"varco.dev/internal/kernel/image"
)

// Root returns the command varco with all its commands.
func Root() *cobra.Command {
	root := &cobra.Command{
		Use:   "varco",
		Short: "Every proxy of a Kubernetes cluster in one binary",
		Long: `Varco is every proxy of a Kubernetes cluster in one binary.

Each command takes the place of a proxy that the cluster has today, and speaks
the configuration that it has today.`,
		Version:       version(),
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: calledAs(os.Args[0])},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(kubectlProxy())
	root.AddCommand(onLinux()...)
	return root
}

// version is that of the module, as the Go tool stamped it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// dashes takes underscores in the names of flags for dashes, as all Kubernetes components do.
func dashes(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
}

// releaseImage gives back the memory of what other commands have in the executable, for those that have little of their own.
func releaseImage(log *slog.Logger) {
	if err := image.Release(); err != nil {
		log.Debug("keeps the executable in memory", "error", err)
	}
}
