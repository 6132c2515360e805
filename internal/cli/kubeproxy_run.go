//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/internal/kernel"
	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/observe"
)

// kubeProxyFlags are kube-proxy's, and what to do with them.
type kubeProxyFlags struct {
	options *config.Options
	metrics prometheus.Collector // of requests to the API server: client-go takes one set of them in the life of a process
}

// execute does the one thing that the flags ask for. In the order of upstream: the version before anything is checked,
// a file written before the kernel is touched.
func (f *kubeProxyFlags) execute(ctx context.Context, out io.Writer) error {
	if f.options.Version != "false" {
		return printVersion(out, f.options.Version)
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	log, _ := newLog(cfg)
	if !f.options.Cleanup {
		report(log, cfg.Notes)
	}
	switch {
	case f.options.WriteTo != "":
		return writeConfig(f.options.WriteTo, cfg, log)
	case f.options.Cleanup:
		return cleanup(ctx, log)
	case f.options.InitOnly:
		return initialize(ctx, cfg, log)
	}
	f.metrics = observe.ClientMetrics()
	return f.reload(ctx, cfg, log, f.run)
}

// config checks all flags, and the file, before anything is done.
func (f *kubeProxyFlags) config() (config.Config, error) { return f.options.Load() }

func newLog(cfg config.Config) (log *slog.Logger, setVerbosity func(int)) {
	log, setVerbosity = observe.NewLog(os.Stderr, cfg.Logging.Format, cfg.Logging.Verbosity)
	return log.With("component", "kube-proxy"), setVerbosity
}

func report(log *slog.Logger, notes []config.Note) {
	for _, n := range notes {
		if n.Warning {
			log.Warn(n.Text)
		} else {
			log.Info(n.Text)
		}
	}
}

func printVersion(out io.Writer, form string) error {
	text := "varco " + version()
	if info, ok := debug.ReadBuildInfo(); ok && form == "raw" {
		text = strings.TrimSpace(info.String())
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// configMode lets all read the file: it holds no secret.
const configMode = 0o644

func writeConfig(path string, cfg config.Config, log *slog.Logger) error {
	if err := os.WriteFile(path, cfg.Effective(), configMode); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	log.Info("wrote the configuration", "file", path)
	return nil
}

// cleanup removes what this proxy has put into the kernel, and what another kube-proxy has left in it.
func cleanup(ctx context.Context, log *slog.Logger) error {
	own := nft.NewNetlink(nft.Config{}).Cleanup(ctx)
	if own == nil {
		log.Info("the tables of Services are removed")
	}
	removed, err := kernel.RemoveKubeProxyLeftovers(ctx, 0)
	if len(removed) > 0 {
		log.Info("removed what another kube-proxy has left in the kernel", "removed", removed)
	}
	return errors.Join(own, err)
}

// initialize does what needs full root privileges.
func initialize(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	prepare(ctx, cfg, log)
	openLocalhost(cfg, log)
	return nft.NewNetlink(nft.Config{Families: kernel.Families()}).Check(ctx)
}

// nodeName is formed as kubelet forms the name of its Node.
func nodeName(override string) (string, error) {
	name := override
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("find the host name (give it with --hostname-override): %w", err)
		}
	}
	if name = strings.ToLower(strings.TrimSpace(name)); name == "" {
		return "", errors.New("the host name is empty: give this node's name with --hostname-override")
	}
	return name, nil
}

func restConfig(c config.Client) (*rest.Config, error) {
	if c.Kubeconfig == "" && c.Master == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags(c.Master, c.Kubeconfig)
}

func newClient(c config.Client) (kubernetes.Interface, error) {
	conf, err := restConfig(c)
	if err != nil {
		return nil, fmt.Errorf("find the API server (give --kubeconfig, clientConnection.kubeconfig in the file, or run in a pod): %w", err)
	}
	conf.UserAgent = "varco-kube-proxy/" + version()
	conf.QPS, conf.Burst = c.QPS, c.Burst
	conf.ContentType, conf.AcceptContentTypes = c.ContentType, c.AcceptContentTypes
	if c.AcceptContentTypes == "" {
		conf.AcceptContentTypes = c.ContentType + ",application/json" // what has no protobuf form comes as JSON
	}
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to the API server: %w", err)
	}
	return client, nil
}
