//go:build linux

package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadFlags(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // part of the error
	}{
		{"kube-proxy --cluster-cidr 10.244.0.0", `--cluster-cidr: "10.244.0.0" is not a network`},
		{"kube-proxy --nodeport-addresses here", `--nodeport-addresses: "here" is not a network`},
		{"kube-proxy --kubeconfig /nonexistent", "find the API server"},
		{"kube-proxy --hostname-override= --kubeconfig /nonexistent --cluster-cidr 10.0.0.0/8,x", `"x" is not a network`},
		{"kube-proxy --cluster-cidr 10.0.0.0/8,10.1.0.0/16", "is the second network of its IP family"},
		{"kube-proxy --cluster-cidr ::ffff:10.0.0.0/104", "is not a network"},
		{"kube-proxy --healthz-bind-address 999", "\"999\" is not an IP address and port"},
		{"kube-proxy --metrics-bind-address 1.2.3.4:99999", "--metrics-bind-address"},
		{"kube-proxy --feature-gates A", "\"A\" is not a gate"},
		{"kube-proxy --bind-address here", "\"here\" is not an IP address"},
		{"kube-proxy --version=old", "is none of true, false, raw"},
		{"kube-proxy --config /nonexistent", "read the configuration: open /nonexistent: no such file"},
		{"kube-proxy surplus", "unknown command"},
		{"kube-proxy --no-such-flag", "unknown flag"},
		{"no-such-proxy", "unknown command"},
	} {
		if _, err := execute(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("varco %s: got error %v, want %q", c.args, err, c.want)
		}
	}
}

func TestHelp(t *testing.T) {
	out, err := execute(t, "kube-proxy", "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Usage:", "Examples:", "--kubeconfig", "--cleanup", "10256", "AllowServiceExternalIPs=true", "status"} {
		if !strings.Contains(out, want) {
			t.Errorf("help lacks %q:\n%s", want, out)
		}
	}
	for _, hidden := range []string{"--ipvs-scheduler", "--healthz-port", "--vmodule"} {
		if strings.Contains(out, hidden) {
			t.Errorf("help has %q, which does nothing", hidden)
		}
	}
}

func TestVersion(t *testing.T) {
	for flag, want := range map[string]string{"--version": "varco ", "--version=true": "varco ", "--version=raw": "go1"} {
		out, err := execute(t, "kube-proxy", flag, "--cluster-cidr=wrong")
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: got %q, %v", flag, out, err)
		}
	}
}

// TestWriteConfig also has an underscore in the name of a flag, and an argument from an empty variable.
func TestWriteConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if _, err := execute(t, "kube-proxy", "--proxy_mode=nftables", "--hostname-override=Node-1", "", "--write-config-to="+path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kind: KubeProxyConfiguration\n", "mode: nftables\n", "hostnameOverride: node-1\n", "- primary\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the file lacks %q:\n%s", want, text)
		}
	}
	if _, err := execute(t, "kube-proxy", "--config="+path, "--write-config-to="+path+"/x"); err == nil {
		t.Error("wrote a file below a file")
	}
}
