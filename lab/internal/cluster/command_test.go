package cluster_test

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"varco.dev/lab/internal/cluster"
)

// What is missing is said with an example, before anything of the lab is looked at.
func TestExecNeedsCommand(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"exec"}, "for example: varco-lab exec node-1 -- "},
		{[]string{"exec", "node-2"}, "no command to run in node-2; for example: varco-lab exec node-2 -- "},
		{[]string{"exec", "node-2", "--"}, "no command to run in node-2"},
	} {
		root := &cobra.Command{Use: "varco-lab", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(cluster.Commands()...)
		root.SetArgs(tc.args)
		root.SetOut(io.Discard)
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: got %v, want an error with %q", tc.args, err, tc.want)
		}
	}
}
