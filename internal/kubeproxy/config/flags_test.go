package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"varco.dev/internal/kubeproxy/config"
)

// TestFlags knows all flags of kube-proxy 1.37 on Linux, as its --help lists them, and the two that it hides: a name and
// the default that is not zero on each line of the file.
func TestFlags(t *testing.T) {
	text, err := os.ReadFile("testdata/flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.NewOptions().AddFlags(flags)
	for line := range strings.Lines(string(text)) {
		name, want, _ := strings.Cut(strings.TrimSpace(line), " ")
		flag := flags.Lookup(name)
		if flag == nil {
			t.Errorf("--%s is unknown", name)
			continue
		}
		zero := want == "" && (flag.DefValue == "false" || flag.DefValue == "0" || flag.DefValue == "0s" || flag.DefValue == "[]")
		if flag.DefValue != want && !zero {
			t.Errorf("--%s is %q, want %q", name, flag.DefValue, want)
		}
	}
}

// TestEveryFlagIsTaken sets each flag to what it is anyway: no flag is an error by itself.
func TestEveryFlagIsTaken(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.NewOptions().AddFlags(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		value := strings.Trim(f.DefValue, "[]")
		if f.Value.Type() == "ipport" {
			value = f.DefValue
		}
		if _, err := options(t, "--"+f.Name+"="+value).Load(); err != nil {
			t.Errorf("--%s=%s: %v", f.Name, value, err)
		}
	})
}

func TestFlagValues(t *testing.T) {
	got := options(t, "--masquerade-all", "--feature-gates=B=false,A=true").FlagValues()
	for name, want := range map[string]string{"masquerade-all": "true", "feature-gates": "A=true,B=false", "conntrack-min": "131072", "config": ""} {
		if value, ok := got[name]; value != want || !ok {
			t.Errorf("--%s is %q, want %q", name, value, want)
		}
	}
}
