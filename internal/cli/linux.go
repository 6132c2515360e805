//go:build linux

package cli

import "github.com/spf13/cobra"

// onLinux returns the commands that need Linux.
func onLinux() []*cobra.Command {
	return []*cobra.Command{kubeProxy(), apiserverProxy(), apiserverLB()}
}
