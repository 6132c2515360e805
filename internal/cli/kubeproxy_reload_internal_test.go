//go:build linux

package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"

	"varco.dev/internal/kubeproxy/config"
)

func modeFile(mode string) []byte {
	return []byte("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: " + mode + "\n")
}

// reloading returns the flags of a command with a file, and the path of the file.
func reloading(t *testing.T) (*kubeProxyFlags, string) {
	path := filepath.Join(t.TempDir(), "config.conf")
	if err := os.WriteFile(path, modeFile("nftables"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &kubeProxyFlags{options: config.NewOptions()}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f.options.AddFlags(flags)
	if err := flags.Parse([]string{"--config=" + path}); err != nil {
		t.Fatal(err)
	}
	return f, path
}

func TestReload(t *testing.T) {
	f, path := reloading(t)
	synctest.Test(t, func(t *testing.T) {
		cfg, err := f.config()
		if err != nil {
			t.Fatal(err)
		}
		var served []string
		running := 0
		serve := func(ctx context.Context, c config.Config) error {
			if running++; running > 1 {
				t.Error("two are running at once")
			}
			served = append(served, string(c.Mode))
			<-ctx.Done()
			time.Sleep(time.Minute) // time of the bubble, which ending takes
			running--
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.reload(ctx, cfg, slog.New(slog.DiscardHandler), serve) }()
		for _, mode := range []string{"nftables", "nonsense", "ipvs", "iptables"} {
			if err := os.WriteFile(path, modeFile(mode), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // time of the bubble, in which the file is looked at
		}
		time.Sleep(2 * time.Minute) // time of the bubble, for two to end
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		if want := []string{"nftables", "iptables"}; !slices.Equal(served, want) {
			t.Errorf("served %v, want %v", served, want)
		}
	})
}

func TestReloadEndsWithServing(t *testing.T) {
	f, _ := reloading(t)
	cfg, err := f.config()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{nil, errors.New("no port")} {
		var log strings.Builder
		serve := func(context.Context, config.Config) error { return want }
		if err := f.reload(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)), serve); !errors.Is(err, want) || log.Len() > 0 {
			t.Errorf("got error %v, want %v; logged %s", err, want, &log)
		}
	}
}

// TestReloadGoesBack has a new configuration that is valid and cannot be served.
func TestReloadGoesBack(t *testing.T) {
	f, path := reloading(t)
	synctest.Test(t, func(t *testing.T) {
		cfg, err := f.config()
		if err != nil {
			t.Fatal(err)
		}
		var served []string
		serve := func(ctx context.Context, c config.Config) error {
			served = append(served, string(c.Mode))
			if c.Mode == config.ModeIPVS {
				return errors.New("no kubeconfig there")
			}
			<-ctx.Done()
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		var log strings.Builder
		go func() { ended <- f.reload(ctx, cfg, slog.New(slog.NewTextHandler(&log, nil)), serve) }()
		if err := os.WriteFile(path, modeFile("ipvs"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // time of the bubble, in which the file is looked at
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		if want := []string{"nftables", "ipvs", "nftables"}; !slices.Equal(served, want) || !strings.Contains(log.String(), "no kubeconfig there") {
			t.Errorf("served %v, want %v; logged %s", served, want, &log)
		}
	})
}

// TestReloadDoesNotGoBackLater has serving fail long after a new configuration was taken over: to serve with the old one,
// which nobody wants any more, would not help.
func TestReloadDoesNotGoBackLater(t *testing.T) {
	f, path := reloading(t)
	synctest.Test(t, func(t *testing.T) {
		cfg, err := f.config()
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("no kernel there")
		serve := func(ctx context.Context, c config.Config) error {
			if c.Mode == config.ModeIPVS {
				time.Sleep(time.Hour) // time of the bubble
				return broken
			}
			<-ctx.Done()
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		ended := make(chan error)
		go func() { ended <- f.reload(ctx, cfg, slog.New(slog.DiscardHandler), serve) }()
		if err := os.WriteFile(path, modeFile("ipvs"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, broken) {
			t.Errorf("ended with %v, want %v", err, broken)
		}
	})
}
