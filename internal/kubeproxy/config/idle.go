package config

import (
	"slices"
	"strings"

	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/spf13/pflag"
)

// addLogging adds the flags of the log. Those of k8s.io/component-base/logs/api/v1 that can change nothing here are
// hidden: messages are written one by one to standard error.
func (o *Options) addLogging(flags *pflag.FlagSet) {
	l := &o.values.Logging
	flags.VarP(logsapi.VerbosityLevelPflag(&l.Verbosity), "v", "v", "verbosity of the log; from 4 on, single objects are logged; also with --config, as the next one")
	flags.StringVar(&l.Format, "logging-format", l.Format, "text or json")
	flags.DurationVar(&l.FlushFrequency.Duration.Duration, "log-flush-frequency", l.FlushFrequency.Duration.Duration, "no effect: nothing is held back")
	flags.Var(logsapi.VModuleConfigurationPflag(&l.VModule), "vmodule", "no effect: verbosity is the same for all files")
	for name, to := range map[string]*logsapi.OutputRoutingOptions{
		"text": &l.Options.Text.OutputRoutingOptions, "json": &l.Options.JSON.OutputRoutingOptions,
	} {
		flags.BoolVar(&to.SplitStream, "log-"+name+"-split-stream", false, "no effect: all goes to standard error")
		flags.Var(&to.InfoBufferSize, "log-"+name+"-info-buffer-size", "no effect: nothing is held back")
	}
	hide(flags, idleLoggingFlags())
}

func idleLoggingFlags() []string {
	return []string{"log-flush-frequency", "vmodule", "log-text-split-stream", "log-text-info-buffer-size",
		"log-json-split-stream", "log-json-info-buffer-size"}
}

// addIdle adds the flags of the modes that do not exist here, hidden.
func (o *Options) addIdle(flags *pflag.FlagSet) {
	v := &o.values.IPVS
	flags.StringVar(&v.Scheduler, "ipvs-scheduler", "", "no effect: backends are chosen at random")
	flags.StringSliceVar(&v.ExcludeCIDRs, "ipvs-exclude-cidrs", nil, "no effect")
	flags.BoolVar(&v.StrictARP, "ipvs-strict-arp", false, "no effect: no address is put on an interface")
	flags.DurationVar(&v.TCPTimeout.Duration, "ipvs-tcp-timeout", 0, "no effect: see --conntrack-tcp-timeout-established")
	flags.DurationVar(&v.TCPFinTimeout.Duration, "ipvs-tcpfin-timeout", 0, "no effect")
	flags.DurationVar(&v.UDPTimeout.Duration, "ipvs-udp-timeout", 0, "no effect: see --conntrack-udp-timeout")
	flags.StringVar(&o.values.ShowHiddenMetricsForVersion, "show-hidden-metrics-for-version", "", "no effect: no metric is hidden")
	hide(flags, idleFlags())
}

func idleFlags() []string {
	return []string{"ipvs-scheduler", "ipvs-exclude-cidrs", "ipvs-strict-arp", "ipvs-tcp-timeout", "ipvs-tcpfin-timeout",
		"ipvs-udp-timeout", "config-sync-period", "show-hidden-metrics-for-version"}
}

func hide(flags *pflag.FlagSet, names []string) {
	for _, name := range names {
		if err := flags.MarkHidden(name); err != nil {
			panic(err) // the flags were added a moment ago
		}
	}
}

// honoured are the flags that count beside a file, as upstream's do, and those that a file has no field for.
func honoured() []string {
	return append([]string{"config", "write-config-to", "cleanup", "init-only", "version", "help", "master", "hostname-override",
		"v", "logging-format", "local-reject", "drain-tcp", "remove-taint", "status-socket", "service-counters"},
		idleLoggingFlags()...)
}

// flagNotes reports the flags that were set and change nothing.
func (o *Options) flagNotes(mode Mode) (out []Note) {
	var ignored, idle []string
	without := append(idleFlags(), idleLoggingFlags()...)
	switch mode {
	case ModeNFTables:
		without = append(without, "iptables-localhost-nodeports", "iptables-masquerade-bit", "ipvs-sync-period", "ipvs-min-sync-period")
	case ModeIPVS:
		without = append(without, "iptables-localhost-nodeports", "iptables-sync-period", "iptables-min-sync-period")
	default:
		without = append(without, "ipvs-sync-period", "ipvs-min-sync-period")
	}
	o.flags.Visit(func(f *pflag.Flag) {
		switch {
		case o.File != "" && !slices.Contains(honoured(), f.Name):
			ignored = append(ignored, "--"+f.Name)
		case slices.Contains(without, f.Name):
			idle = append(idle, "--"+f.Name)
		}
	})
	if len(ignored) > 0 {
		out = append(out, Note{Warning: true, Text: "these flags are ignored because of --config, set them in the file: " + strings.Join(ignored, ", ")})
	}
	if len(idle) > 0 {
		out = append(out, Note{Text: "these flags have no effect here: " + strings.Join(idle, ", ")})
	}
	return out
}

// fieldNotes reports the fields of a file that were set and change nothing. Defaults must not be filled in yet.
func fieldNotes(k *v1alpha1.KubeProxyConfiguration) []Note {
	l, v := k.Logging, k.IPVS
	t, j := l.Options.Text, l.Options.JSON
	flush := l.FlushFrequency.Duration.Duration
	var idle []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"iptables.localhostNodePorts", Mode(k.Mode) != ModeIPTables && k.Mode != "" && ptr.Deref(k.IPTables.LocalhostNodePorts, false)},
		{"ipvs.scheduler", v.Scheduler != ""},
		{"ipvs.excludeCIDRs", len(v.ExcludeCIDRs) > 0},
		{"ipvs.strictARP", v.StrictARP},
		{"ipvs.tcpTimeout", v.TCPTimeout.Duration != 0},
		{"ipvs.tcpFinTimeout", v.TCPFinTimeout.Duration != 0},
		{"ipvs.udpTimeout", v.UDPTimeout.Duration != 0},
		{"winkernel", k.Winkernel != v1alpha1.KubeProxyWinkernelConfiguration{}},
		{"windowsRunAsService", k.WindowsRunAsService},
		{"portRange", k.PortRange != ""},
		{"configSyncPeriod", k.ConfigSyncPeriod.Duration != 0},
		{"showHiddenMetricsForVersion", k.ShowHiddenMetricsForVersion != ""},
		{"logging.flushFrequency", flush != 0 && flush != logsapi.LogFlushFreqDefault},
		{"logging.vmodule", len(l.VModule) > 0},
		{"logging.options", t.SplitStream || j.SplitStream || t.InfoBufferSize.Value() != 0 || j.InfoBufferSize.Value() != 0},
	} {
		if f.set {
			idle = append(idle, f.name)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	return []Note{{Text: "these fields have no effect here: " + strings.Join(idle, ", ")}}
}
