//go:build !linux

package cli

import "github.com/spf13/cobra"

// onLinux returns none: what serves a node needs Linux. What serves a user's computer does not.
func onLinux() []*cobra.Command { return nil }
