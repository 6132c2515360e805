//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/kernel"
	"varco.dev/internal/kubeproxy"
	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/kubeproxy/nft"
)

// routeLocalnet lets packets of 127.0.0.1 leave this machine, which NodePorts at localhost need; the rules keep others from
// using it.
const routeLocalnet = "/proc/sys/net/ipv4/conf/all/route_localnet"

// garbagePercent is how much garbage the process gathers before it collects, in percent of what is in use: half of Go's
// default, because changes make little, and memory of every node counts. GOGC in the environment goes before it.
const garbagePercent = 50

// run serves as the configuration says, until the context ends. It may be called again when it has returned.
func (f *kubeProxyFlags) run(ctx context.Context, cfg config.Config) error {
	node, err := nodeName(cfg.HostnameOverride)
	if err != nil {
		return err
	}
	client, err := newClient(cfg.Client)
	if err != nil {
		return err
	}
	log, setVerbosity := newLog(cfg)
	log = log.With("node", node)
	prepare(ctx, cfg, log)
	for {
		err := f.serve(ctx, cfg, client, node, log, setVerbosity)
		if !errors.Is(err, kubeproxy.ErrPodCIDRs) {
			return err
		}
		log.Info("takes over the new pod networks of this node")
	}
}

// prepare sets what the kernel and this process are to be like. What cannot be set is said, and no reason not to serve.
func prepare(ctx context.Context, cfg config.Config, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	releaseImage(log)
	if err := kernel.SetOOMScore(cfg.OOMScoreAdj); err != nil {
		log.Info("cannot choose how soon this process is ended when memory runs out", "error", err)
	}
	if err := kernel.NewConntrack(0).Check(ctx); err != nil {
		log.Warn("connections are not tracked", "error", err)
	}
	set(limits(cfg.Conntrack).Settings(kernel.OnlineCPUs("")), log)
}

// openLocalhost lets NodePorts be reached at 127.0.0.1, where they are to be.
func openLocalhost(cfg config.Config, log *slog.Logger) {
	if cfg.NodePorts.Localhost(true) {
		set([]kernel.Setting{{Path: routeLocalnet, Value: 1}}, log)
	}
}

// set sets what can be set, and says what was and what could not be.
func set(settings []kernel.Setting, log *slog.Logger) {
	done, warnings, err := kernel.ApplySettings("", settings)
	for _, s := range done {
		log.Info("set the kernel's", "setting", s)
	}
	for _, w := range warnings {
		log.Warn(w)
	}
	if err != nil {
		log.Error("cannot set the kernel as configured", "error", err)
	}
}

func limits(c config.Conntrack) kernel.ConntrackLimits {
	perCore, least := int32(c.MaxPerCore), int32(c.Min)
	pointer := func(d time.Duration) *time.Duration { return &d }
	return kernel.ConntrackLimits{
		MaxPerCore: &perCore, Min: &least, TCPBeLiberal: c.TCPBeLiberal,
		TCPEstablishedTimeout: pointer(c.TCPEstablished), TCPCloseWaitTimeout: pointer(c.TCPCloseWait),
		UDPTimeout: pointer(c.UDP), UDPStreamTimeout: pointer(c.UDPStream),
	}
}

// serve runs one proxy.
func (f *kubeProxyFlags) serve(ctx context.Context, cfg config.Config, client kubernetes.Interface, node string, log *slog.Logger,
	setVerbosity func(int),
) error {
	c := kubeproxy.Config{
		Settings: cfg, Client: client, NodeName: node, Families: kernel.Families(), Version: version(),
		Flows: kernel.NewConntrack(0), ClientMetrics: f.metrics, Log: log,
		SetVerbosity: setVerbosity,
		Served: func() {
			openLocalhost(cfg, log) // not before the rules guard it
			releaseImage(log)       // what the first listing and the first rules have used rests from now on
		},
		Leftovers: func(ctx context.Context) ([]string, error) { return kernel.RemoveKubeProxyLeftovers(ctx, 0) },
	}
	if cfg.Gate("ComponentFlagz") {
		c.Flags = f.options.FlagValues()
	}
	if cfg.DetectLocal.Mode == config.ByNodeCIDR {
		if c.PodCIDRs = kubeproxy.AwaitPodCIDRs(ctx, c); ctx.Err() != nil {
			return nil
		}
	}
	rules := rulesOf(cfg, c)
	log.Info("starting", "version", c.Version, "families", fmt.Sprint(c.Families), "detect-local", cfg.DetectLocal.Mode,
		"pods", detected(rules.Detector))
	nftables := nft.NewNetlink(rules)
	defer nftables.Close()
	c.Plane, c.Kernel = nft.New(nftables), nftables
	return kubeproxy.New(c).Run(ctx)
}

// rulesOf returns what the configuration means for the rules.
func rulesOf(cfg config.Config, c kubeproxy.Config) nft.Config {
	rules := nft.Config{
		Families: c.Families, MasqueradeMark: cfg.Masquerade.Mark(), MasqueradeAll: cfg.Masquerade.All,
		LocalReject: cfg.Own.LocalReject, Detector: nft.Detector{CIDRs: cfg.DetectLocal.CIDRs},
	}
	switch cfg.DetectLocal.Mode {
	case config.ByNodeCIDR:
		rules.Detector.CIDRs = c.PodCIDRs
	case config.ByBridgeInterface:
		rules.Detector = nft.Detector{Bridge: cfg.DetectLocal.Interface}
	case config.ByInterfaceNamePrefix:
		rules.Detector = nft.Detector{InterfacePrefix: cfg.DetectLocal.Interface}
	}
	switch cfg.Own.Counters {
	case config.CountAll:
		rules.Counters = nft.CountAll
	case config.CountConnections:
		rules.Counters = nft.CountConnections
	}
	return rules
}

// detected says how pods of this node are told from others, for the log.
func detected(d nft.Detector) string {
	switch {
	case d.Bridge != "":
		return "behind " + d.Bridge
	case d.InterfacePrefix != "":
		return "behind " + d.InterfacePrefix + "*"
	case len(d.CIDRs) == 0:
		return "not told from others"
	}
	var all []string
	for _, p := range d.CIDRs {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}
