package kubectlproxy_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/bench/internal/kubectlproxy"
)

// TestMain makes this program what the bench starts: the server, and both proxies.
func TestMain(m *testing.M) {
	args := os.Args[1:]
	if len(args) == 0 || strings.HasPrefix(args[0], "-test.") {
		os.Exit(m.Run())
	}
	if err := child(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(args []string) error {
	switch {
	case len(args) > 1 && args[0] == "kubectl-proxy" && args[1] == "server":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		cmd := kubectlproxy.Command()
		cmd.SetArgs(args[1:])
		return cmd.ExecuteContext(ctx)
	case args[0] == "kubectl-proxy" || args[0] == "proxy":
		return proxy(args[1:])
	case args[0] == "--version" || args[0] == "version":
		fmt.Println("Client Version: v0")
	}
	return nil
}

// proxy is the least that can be measured.
func proxy(args []string) error {
	f := flag.NewFlagSet("proxy", flag.ContinueOnError)
	kubeconfig, port := f.String("kubeconfig", "", ""), f.Int("port", 0, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return err
	}
	to, err := url.Parse(config.Host)
	if err != nil {
		return err
	}
	h := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	return http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), h)
}

// smallest is a run of seconds.
var smallest = []string{"--rounds=1", "--connections=1,4", "--get-time=100ms", "--watches=5", "--watch-time=500ms", "--warm=10ms",
	"--body-mib=2", "--starts=1"}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, log strings.Builder
	cmd := kubectlproxy.Command()
	cmd.SilenceUsage = true
	cmd.SetOut(&out)
	cmd.SetErr(&log)
	cmd.SetArgs(slices.Concat([]string{"--varco", self, "--peer", self}, smallest, args))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestWholeRun(t *testing.T) {
	dir := t.TempDir()
	text, err := run(t, "--out", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| kubectl | v0 |", "## Small GETs on 4 connections", "## 5 watches of 20 events a second",
		"## A large body", "## Start", "## From 1 to 4 connections", "| measure | varco | kubectl | varco ÷ kubectl | bar | kept |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the report:\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		// Quotients may be dashes, figures may not.
		if cells := strings.Split(line, " | "); len(cells) > 3 && (cells[1] == "–" || cells[2] == "–") {
			t.Errorf("not measured: %s", line)
		}
	}
	again, err := run(t, "--from", filepath.Join(dir, "kubectl-proxy.csv"))
	// The samples have fewer digits than what was measured: a figure may differ in its last.
	if err != nil || strings.Count(again, "|") != strings.Count(text, "|") {
		t.Errorf("the report of the samples is another one, %v:\n%s", err, again)
	}
}

func TestOneContenderAlone(t *testing.T) {
	text, err := run(t, "--only=varco", "--peer=nothing", "--measures=start")
	if err != nil || !strings.Contains(text, "| start to first answer, ms |") || strings.Contains(text, "kubectl |") {
		t.Errorf("got %v and:\n%s", err, text)
	}
}

func TestWhatCannotBeMeasured(t *testing.T) {
	for _, args := range [][]string{{"--peer=nothing-of-this-name"}, {"--only=haproxy"}, {"--varco=/bin/false"}, {"--connections=4,1"}} {
		if text, err := run(t, args...); err == nil {
			t.Errorf("%v: measured:\n%s", args, text)
		}
	}
}
