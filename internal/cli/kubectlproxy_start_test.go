package cli_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varco.dev/internal/cli"
	"varco.dev/internal/nettest"
)

// untilServing ends what runs as soon as it says that it serves.
type untilServing struct {
	io.Writer
	stop context.CancelFunc
}

func (u untilServing) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p), "Starting to serve on ") {
		u.stop()
	}
	return u.Writer.Write(p)
}

// TestWithoutServer starts as kubectl proxy does, at localhost:8080, and says so where nobody has named that server.
func TestWithoutServer(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_MASTER", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for args, warned := range map[string]bool{
		"--kubeconfig " + empty:                                     true,
		"--kubeconfig " + os.DevNull:                                true, // read once, as a pipe
		"--server http://localhost:8080":                            false,
		"--server http://10.0.0.1 --kubeconfig " + empty:            false,
		"--server http://localhost:8080 --kubeconfig " + os.DevNull: false,
	} {
		t.Setenv("HOME", t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		var said nettest.Journal
		root := cli.Root()
		root.SetArgs(append([]string{"kubectl-proxy", "--port=0"}, strings.Fields(args)...))
		root.SetOut(untilServing{&said, stop})
		root.SetErr(&said)
		err := root.ExecuteContext(ctx)
		stop()
		if got := strings.Contains(said.String(), "localhost:8080 is taken"); err != nil || got != warned {
			t.Errorf("%s: got error %v, and a warning: %v, want %v\n%s", args, err, got, warned, &said)
		}
	}
}
