package cluster_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

// pluginFolder is the variable that makes the test binary a credential plugin: it prints what the file "credential" of
// that folder has, and adds a line to its file "runs".
const pluginFolder = "VARCO_TEST_PLUGIN"

// verbosity is the variable that sets how much client-go logs.
const verbosity = "VARCO_TEST_V"

func TestMain(m *testing.M) {
	if v := os.Getenv(verbosity); v != "" {
		flags := flag.NewFlagSet("", flag.PanicOnError)
		klog.InitFlags(flags)
		flags.Parse([]string{"-v=" + v})
	}
	if dir := os.Getenv(pluginFolder); dir != "" {
		os.Exit(beThePlugin(dir))
	}
	os.Exit(m.Run())
}

func beThePlugin(dir string) int {
	runs, err := os.OpenFile(filepath.Join(dir, "runs"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	fmt.Fprintln(runs, "run")
	runs.Close()
	credential, err := os.ReadFile(filepath.Join(dir, "credential"))
	if err != nil {
		return 1
	}
	os.Stdout.Write(credential)
	return 0
}

// plugin is a credential plugin that is this test binary.
type plugin struct {
	t   *testing.T
	dir string
}

func newPlugin(t *testing.T) plugin { return plugin{t, t.TempDir()} }

// user returns the kubeconfig's entry.
func (p plugin) user() *clientcmdapi.AuthInfo {
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	return &clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
		APIVersion: "client.authentication.k8s.io/v1", Command: self, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		Env: []clientcmdapi.ExecEnvVar{{Name: pluginFolder, Value: p.dir}},
	}}
}

// gives has the plugin print this status from now on.
func (p plugin) gives(status string) {
	put(p.t, filepath.Join(p.dir, "credential"),
		`{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": `+status+`}`)
}

func (p plugin) givesToken(token string) { p.gives(fmt.Sprintf(`{"token": %q}`, token)) }

// runs returns how often the plugin has run.
func (p plugin) runs() int {
	data, err := os.ReadFile(filepath.Join(p.dir, "runs"))
	if err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
