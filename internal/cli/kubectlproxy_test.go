package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/proxy"
	"k8s.io/kubectl/pkg/cmd/util"

	"varco.dev/internal/cli"
)

// kubectlProxy finds the command under one of its names.
func kubectlProxy(t *testing.T, name string) *cobra.Command {
	t.Helper()
	cmd, _, err := cli.Root().Find([]string{name})
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

type flagForm struct{ Shorthand, Type, Default string }

// TestKubectlFlags compares with the original's own command: every flag is there, in its form and with its default.
func TestKubectlFlags(t *testing.T) {
	kube := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag()
	matching := util.NewMatchVersionFlags(kube)
	original := proxy.NewCmdProxy(util.NewFactory(matching), genericiooptions.NewTestIOStreamsDiscard())
	kube.AddFlags(original.PersistentFlags())
	matching.AddFlags(original.PersistentFlags())
	ours := kubectlProxy(t, "kubectl-proxy").Flags()
	differs := map[string]string{
		"append-server-path": "on by default: a server's path is used where there is one",
		"cache-dir":          "the default depends on the home folder",
	}
	seen := 0
	compare := func(theirs *pflag.Flag) {
		seen++
		flag := ours.Lookup(theirs.Name)
		if flag == nil {
			t.Errorf("--%s is missing", theirs.Name)
			return
		}
		got := flagForm{flag.Shorthand, flag.Value.Type(), flag.DefValue}
		want := flagForm{theirs.Shorthand, theirs.Value.Type(), theirs.DefValue}
		if diff := cmp.Diff(want, got); diff != "" && differs[theirs.Name] == "" {
			t.Errorf("--%s (-original +ours):\n%s", theirs.Name, diff)
		}
	}
	original.Flags().VisitAll(compare)
	original.PersistentFlags().VisitAll(compare)
	if seen < 30 {
		t.Errorf("compared %d flags only", seen)
	}
	for _, name := range []string{"profile", "profile-output", "kuberc", "warnings-as-errors", "v", "vmodule"} {
		if ours.Lookup(name) == nil {
			t.Errorf("--%s, which kubectl adds elsewhere, is missing", name)
		}
	}
}

func TestKubectlProxyBadFlags(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "config")
	if err := os.WriteFile(kubeconfig, []byte("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	for _, c := range []struct{ args, want string }{
		{"--port 8002 --unix-socket /tmp/x", "cannot set --unix-socket and --port at the same time"},
		{"--accept-paths [", "--accept-paths"},
		{"--reject-paths ^a,(", "--reject-paths"},
		{"--accept-hosts *", "--accept-hosts"},
		{"--reject-methods (", "--reject-methods"},
		{"--accept-origins (", "--accept-origins"},
		{"--allow shell", "--allow"},
		{"--services always", "--services"},
		{"--client-authorization maybe", "--client-authorization"},
		{"--port 70000", "--port: 70000"},
		{"--tls-cert-file x", "--tls-private-key-file"},
		{"--tls-self-signed --tls-cert-file x --tls-private-key-file y", "--tls-self-signed"},
		{"--tls-client-ca-file x", "--tls-client-ca-file"},
		{"--max-connections 0", "--max-connections"},
		{"--idle-timeout -1s", "--idle-timeout"},
		{"--www . --www-prefix /", "--www-prefix / is also that of --api-prefix"},
		{"--www . --www-prefix clusters --contexts all", "--www-prefix /clusters/ is also that of --contexts"},
		{"--api-prefix clusters --contexts all", "--api-prefix /clusters/ is also that of --contexts"},
		{"--www . --www-prefix / --api-prefix /k8s/ --ui", "--www-prefix / is also that of the start page"},
		{"--services tunnel --deny pods/portforward", "--services tunnel needs pods/portforward"},
		{"--services tunnel --deny pods", "--services tunnel needs pods/portforward"},
		{"--logging-format xml", "--logging-format"},
		{"--context nowhere", "nowhere"},
		{"--port=0 --contexts nowhere", "nowhere"},
		{"--port=0 --tls-cert-file " + dir + "/no --tls-private-key-file " + dir + "/no", "--tls-cert-file: stat"},
		{"--port=0 --address 192.0.2.1", "192.0.2.1"},
		{"--unix-socket " + dir, "address already in use"},
		{"surplus", "unknown command"},
	} {
		if out, err := execute(t, append([]string{"kubectl-proxy"}, strings.Fields(c.args)...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("varco kubectl-proxy %s: got error %v, want %q; output %s", c.args, err, c.want, out)
		}
	}
}

func TestKubectlProxyNames(t *testing.T) {
	if got := kubectlProxy(t, "proxy").Name(); got != "kubectl-proxy" {
		t.Errorf("varco proxy is %q", got)
	}
}
