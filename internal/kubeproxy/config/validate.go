package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/kube-proxy/config/v1alpha1"
)

// problems gathers all that is wrong, so that a user can mend it at once. Where flags are the source, their names
// stand in the place of the fields'.
type problems struct {
	fromFlags bool
	list      []string
}

// add says what is wrong with a field, or with the flag that sets it. A field of which no flag exists has flag "".
func (p *problems) add(field, flag, format string, args ...any) {
	if p.fromFlags && flag != "" {
		field = "--" + flag
	}
	p.list = append(p.list, field+": "+fmt.Sprintf(format, args...))
}

func (p *problems) err() error {
	switch len(p.list) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s", p.list[0])
	}
	return fmt.Errorf("%d things are wrong: %s", len(p.list), strings.Join(p.list, "; "))
}

// validate has upstream's conditions (pkg/proxy/apis/config/validation). Defaults must be filled in.
func (p *problems) validate(k *v1alpha1.KubeProxyConfiguration) {
	p.modes(k)
	p.masquerade(k)
	p.ipvs(k)
	p.periods(k)
	p.addresses(k)
	p.nodePorts(k.NodePortAddresses)
	p.detectLocal(k)
	p.conntrack(k.Conntrack)
	if n := *k.OOMScoreAdj; n < -1000 || n > 1000 {
		p.add("oomScoreAdj", "oom-score-adj", "%d is not within -1000 to 1000", n)
	}
	if k.ClientConnection.Burst < 0 {
		p.add("clientConnection.burst", "kube-api-burst", "%d is below 0", k.ClientConnection.Burst)
	}
	if v := k.ShowHiddenMetricsForVersion; v != "" && !regexp.MustCompile(`^\d+\.\d+$`).MatchString(v) {
		p.add("showHiddenMetricsForVersion", "show-hidden-metrics-for-version", "%q is not a version such as 1.36", v)
	}
	p.logging(k)
}

func (p *problems) modes(k *v1alpha1.KubeProxyConfiguration) {
	switch Mode(k.Mode) {
	case ModeIPTables, ModeIPVS, ModeNFTables:
	case "kernelspace":
		p.add("mode", "proxy-mode", "kernelspace is for Windows: leave it out, or give nftables")
	default:
		p.add("mode", "proxy-mode", "%q is none of iptables, ipvs, nftables", k.Mode)
	}
}

func (p *problems) masquerade(k *v1alpha1.KubeProxyConfiguration) {
	bit := func(n *int32, field, flag string) {
		if *n < 0 || *n > 31 {
			p.add(field, flag, "%d is not within 0 to 31", *n)
		}
	}
	bit(k.IPTables.MasqueradeBit, "iptables.masqueradeBit", "iptables-masquerade-bit")
	if Mode(k.Mode) == ModeNFTables {
		bit(k.NFTables.MasqueradeBit, "nftables.masqueradeBit", "")
	}
}

// ipvs checks what has no effect here, so that a file is not good for one proxy and bad for the other.
func (p *problems) ipvs(k *v1alpha1.KubeProxyConfiguration) {
	if Mode(k.Mode) != ModeIPVS {
		return
	}
	p.notNegative(k.IPVS.TCPTimeout.Duration, "ipvs.tcpTimeout", "ipvs-tcp-timeout")
	p.notNegative(k.IPVS.TCPFinTimeout.Duration, "ipvs.tcpFinTimeout", "ipvs-tcpfin-timeout")
	p.notNegative(k.IPVS.UDPTimeout.Duration, "ipvs.udpTimeout", "ipvs-udp-timeout")
	for i, s := range k.IPVS.ExcludeCIDRs {
		if _, ok := parsePrefix(s); !ok {
			p.add(fmt.Sprintf("ipvs.excludeCIDRs[%d]", i), "ipvs-exclude-cidrs", "%q is not a network such as 10.0.0.0/8", s)
		}
	}
}

func (p *problems) periods(k *v1alpha1.KubeProxyConfiguration) {
	of := modeSettingsOf(k)
	flag := of.section
	if flag == "nftables" {
		flag = "iptables" // as upstream, whose nftables mode has no flags of its own
	}
	sync, least := of.syncPeriod.Duration, of.minSyncPeriod.Duration
	if sync <= 0 {
		p.add(of.section+".syncPeriod", flag+"-sync-period", "%v is not above 0", sync)
	}
	if p.notNegative(least, of.section+".minSyncPeriod", flag+"-min-sync-period"); least > sync && sync > 0 {
		p.add(of.section+".minSyncPeriod", flag+"-min-sync-period", "%v is longer than the sync period, %v", least, sync)
	}
	if d := k.ConfigSyncPeriod.Duration; d <= 0 {
		p.add("configSyncPeriod", "config-sync-period", "%v is not above 0", d)
	}
}

func (p *problems) notNegative(d time.Duration, field, flag string) {
	if d < 0 {
		p.add(field, flag, "%v is below 0", d)
	}
}

func (p *problems) addresses(k *v1alpha1.KubeProxyConfiguration) {
	if _, ok := parseAddr(k.BindAddress); !ok {
		p.add("bindAddress", "bind-address", "%q is not an IP address", k.BindAddress)
	}
	port := func(address, field, flag, example string) {
		if _, ok := parseAddrPort(address); !ok && address != "" {
			p.add(field, flag, "%q is not an IP address and port such as %s", address, example)
		}
	}
	port(k.HealthzBindAddress, "healthzBindAddress", "healthz-bind-address", "0.0.0.0:10256")
	port(k.MetricsBindAddress, "metricsBindAddress", "metrics-bind-address", "127.0.0.1:10249")
}

func (p *problems) nodePorts(words []string) {
	for i, w := range words {
		field, flag := fmt.Sprintf("nodePortAddresses[%d]", i), "nodeport-addresses"
		switch w {
		case wordPrimary, wordLocalhost, wordAll:
			if slices.Contains(words[:i], w) {
				p.add(field, flag, "%q is there twice", w)
			}
		default:
			if _, ok := parsePrefix(w); !ok {
				p.add(field, flag, "%q is not a network such as 10.0.0.0/8, nor one of primary, localhost, all", w)
			}
		}
	}
}

func (p *problems) detectLocal(k *v1alpha1.KubeProxyConfiguration) {
	switch LocalMode(k.DetectLocalMode) {
	case ByNodeCIDR:
	case ByClusterCIDR:
		p.clusterCIDR(k.ClusterCIDR)
	case ByBridgeInterface:
		if k.DetectLocal.BridgeInterface == "" {
			p.add("detectLocal.bridgeInterface", "pod-bridge-interface", "it is empty, and detectLocalMode BridgeInterface needs it")
		}
	case ByInterfaceNamePrefix:
		if k.DetectLocal.InterfaceNamePrefix == "" {
			p.add("detectLocal.interfaceNamePrefix", "pod-interface-name-prefix", "it is empty, and detectLocalMode InterfaceNamePrefix needs it")
		}
	default:
		p.add("detectLocalMode", "detect-local-mode", "%q is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix", k.DetectLocalMode)
	}
}

func (p *problems) clusterCIDR(list string) {
	families := map[bool]bool{}
	for _, s := range splitCIDRs(list) {
		n, ok := parsePrefix(s)
		switch {
		case !ok:
			p.add("clusterCIDR", "cluster-cidr", "%q is not a network such as 10.244.0.0/16", s)
		case families[n.Addr().Is4()]:
			p.add("clusterCIDR", "cluster-cidr", "%s is the second network of its IP family: give one of each", n)
		}
		families[n.Addr().Is4()] = families[n.Addr().Is4()] || ok
	}
}

func splitCIDRs(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func (p *problems) conntrack(c v1alpha1.KubeProxyConntrackConfiguration) {
	if *c.MaxPerCore < 0 {
		p.add("conntrack.maxPerCore", "conntrack-max-per-core", "%d is below 0", *c.MaxPerCore)
	}
	if *c.Min < 0 {
		p.add("conntrack.min", "conntrack-min", "%d is below 0", *c.Min)
	}
	p.notNegative(c.TCPEstablishedTimeout.Duration, "conntrack.tcpEstablishedTimeout", "conntrack-tcp-timeout-established")
	p.notNegative(c.TCPCloseWaitTimeout.Duration, "conntrack.tcpCloseWaitTimeout", "conntrack-tcp-timeout-close-wait")
	p.notNegative(c.UDPTimeout.Duration, "conntrack.udpTimeout", "conntrack-udp-timeout")
	p.notNegative(c.UDPStreamTimeout.Duration, "conntrack.udpStreamTimeout", "conntrack-udp-timeout-stream")
}

// logging has the conditions of k8s.io/component-base/logs/api/v1.
func (p *problems) logging(k *v1alpha1.KubeProxyConfiguration) {
	l := k.Logging
	if l.Format != "text" && l.Format != "json" {
		p.add("logging.format", "logging-format", "%q is neither text nor json", l.Format)
	}
	if d := l.FlushFrequency.Duration.Duration; d <= 0 {
		p.add("logging.flushFrequency", "log-flush-frequency", "%v is not above 0", d)
	}
	if l.Verbosity > math.MaxInt32 {
		p.add("logging.verbosity", "v", "%d is above %d", l.Verbosity, math.MaxInt32)
	}
	if len(l.VModule) > 0 && l.Format == "json" {
		p.add("logging.vmodule", "vmodule", "it goes with the format text only")
	}
	for i, m := range l.VModule {
		if m.FilePattern == "" || strings.ContainsAny(m.FilePattern, "=,") || m.Verbosity > math.MaxInt32 {
			p.add(fmt.Sprintf("logging.vmodule[%d]", i), "vmodule", "%s=%d is not a pattern and a level", m.FilePattern, m.Verbosity)
		}
	}
	if gateOn(k.FeatureGates, gateLoggingAlpha) {
		return
	}
	t, j := l.Options.Text, l.Options.JSON
	if t.SplitStream || j.SplitStream || t.InfoBufferSize.Value() != 0 || j.InfoBufferSize.Value() != 0 {
		p.add("logging.options", "", "split streams need the feature gate %s", gateLoggingAlpha)
	}
}
