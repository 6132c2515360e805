//go:build unix

package cli

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
)

const twoContexts = `apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "http://a.example"}}, {name: b, cluster: {server: "http://b.example"}}]
contexts: [{name: one, context: {cluster: a}}, {name: two, context: {cluster: b}}]
current-context: one
`

// TestKubeconfigIsAPipe writes a kubeconfig into a named pipe, once, as a shell does for <(kind get kubeconfig).
func TestKubeconfigIsAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, []byte(twoContexts), 0) }()
	f := newKubectlProxyFlags()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.addFlags(flags)
	if err := flags.Parse([]string{"--kubeconfig", path, "--as", "jane", "--as-user-extra", "k=v", "--as-user-extra", "k=w"}); err != nil {
		t.Fatal(err)
	}
	c, err := f.config()
	if err != nil {
		t.Fatal(err)
	}
	if c.Clusters.Files != nil {
		t.Error("the pipe is followed")
	}
	jane := rest.ImpersonationConfig{UserName: "jane", Extra: map[string][]string{"k": {"v", "w"}}}
	for _, want := range []struct{ context, server string }{{"", "http://a.example"}, {"two", "http://b.example"}, {"one", "http://a.example"}, {"", "http://a.example"}} {
		got, err := c.Clusters.Load(want.context).ClientConfig()
		if err != nil || got.Host != want.server {
			t.Fatalf("context %q: server %v, error %v, want %s", want.context, got, err, want.server)
		}
		if diff := cmp.Diff(jane, got.Impersonate); diff != "" {
			t.Errorf("context %q (-want +got):\n%s", want.context, diff)
		}
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
