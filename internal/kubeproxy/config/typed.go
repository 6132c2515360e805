package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/utils/ptr"
)

// typed converts what has been checked.
func typed(k *v1alpha1.KubeProxyConfiguration) Config {
	of := modeSettingsOf(k)
	c := Config{
		Mode:             Mode(k.Mode),
		HostnameOverride: strings.ToLower(strings.TrimSpace(k.HostnameOverride)),
		BindHardFail:     k.BindAddressHardFail,
		Profiling:        k.EnableProfiling,
		Client: Client{
			Kubeconfig:         k.ClientConnection.Kubeconfig,
			QPS:                k.ClientConnection.QPS,
			Burst:              int(k.ClientConnection.Burst),
			ContentType:        k.ClientConnection.ContentType,
			AcceptContentTypes: k.ClientConnection.AcceptContentTypes,
		},
		DetectLocal:   typedDetectLocal(k),
		NodePorts:     typedNodePorts(k.NodePortAddresses).withLocalhost(localhostOf(k)),
		ExternalIPs:   gateOn(k.FeatureGates, gateExternalIPs),
		Masquerade:    Masquerade{Bit: int(*of.masqueradeBit), All: *of.masqueradeAll},
		Conntrack:     typedConntrack(k.Conntrack),
		OOMScoreAdj:   int(*k.OOMScoreAdj),
		Logging:       Logging{Format: k.Logging.Format, Verbosity: int(k.Logging.Verbosity)},
		FeatureGates:  maps.Clone(k.FeatureGates),
		SyncPeriod:    of.syncPeriod.Duration,
		MinSyncPeriod: of.minSyncPeriod.Duration,
		effective:     k,
	}
	if a, _ := parseAddr(k.BindAddress); !a.IsUnspecified() {
		c.NodeIP = a
	}
	c.Health, _ = parseAddrPort(k.HealthzBindAddress)
	c.Metrics, _ = parseAddrPort(k.MetricsBindAddress)
	return c
}

func typedConntrack(c v1alpha1.KubeProxyConntrackConfiguration) Conntrack {
	return Conntrack{
		MaxPerCore:     int(*c.MaxPerCore),
		Min:            int(*c.Min),
		TCPEstablished: c.TCPEstablishedTimeout.Duration,
		TCPCloseWait:   c.TCPCloseWaitTimeout.Duration,
		TCPBeLiberal:   c.TCPBeLiberal,
		UDP:            c.UDPTimeout.Duration,
		UDPStream:      c.UDPStreamTimeout.Duration,
	}
}

func typedDetectLocal(k *v1alpha1.KubeProxyConfiguration) DetectLocal {
	d := DetectLocal{Mode: LocalMode(k.DetectLocalMode)}
	switch d.Mode {
	case ByClusterCIDR:
		for _, s := range splitCIDRs(k.ClusterCIDR) {
			p, _ := parsePrefix(s)
			d.CIDRs = append(d.CIDRs, p)
		}
	case ByBridgeInterface:
		d.Interface = k.DetectLocal.BridgeInterface
	case ByInterfaceNamePrefix:
		d.Interface = k.DetectLocal.InterfaceNamePrefix
	}
	return d
}

func typedNodePorts(words []string) NodePorts {
	n := NodePorts{Words: slices.Clone(words)}
	for _, w := range words {
		switch w {
		case wordPrimary:
			n.Primary = true
		case wordLocalhost:
			n.Networks = append(n.Networks, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
		case wordAll:
			n.Networks = append(n.Networks, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
		default:
			p, _ := parsePrefix(w)
			n.Networks = append(n.Networks, p)
		}
	}
	return n
}

// localhostOf tells whether NodePorts are to be served at 127.0.0.1 without being named: kube-proxy's mode iptables does,
// unless it is told not to.
func localhostOf(k *v1alpha1.KubeProxyConfiguration) bool {
	return Mode(k.Mode) == ModeIPTables && ptr.Deref(k.IPTables.LocalhostNodePorts, true)
}

// withLocalhost adds 127.0.0.1 where all addresses of IPv4 are served.
func (n NodePorts) withLocalhost(wanted bool) NodePorts {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	named := n.Primary || slices.ContainsFunc(n.Networks, func(p netip.Prefix) bool { return p.Addr().Is4() })
	switch {
	case !wanted || named && !slices.Contains(n.Networks, all):
		return n
	case !named:
		n.Networks = append(n.Networks, all)
	}
	n.Networks = append(n.Networks, netip.MustParsePrefix("127.0.0.0/8"))
	return n
}

// slowestUseful is the pause beyond which clients notice that a change comes late.
const slowestUseful = 10 * time.Second

// notes are what a user should know about the configuration as a whole.
func (c Config) notes(modeGiven bool) (out []Note) {
	note := func(format string, args ...any) { out = append(out, Note{Text: fmt.Sprintf(format, args...)}) }
	switch {
	case !modeGiven:
		note("no mode is given: the rules are nftables, and the options are read as those of mode %s, kube-proxy's default", c.Mode)
	case c.Mode != ModeNFTables:
		note("mode %s: the rules are nftables, and what of its options has a meaning there is followed", c.Mode)
	}
	if len(c.NodePorts.Words) == 0 {
		loopback := "but loopback"
		if c.NodePorts.Localhost(true) {
			loopback = "and at 127.0.0.1"
		}
		note("nodePortAddresses is not set: NodePorts are served at all addresses of this machine %s; see the words primary and localhost", loopback)
	}
	if c.DetectLocal.Mode == ByClusterCIDR && len(c.DetectLocal.CIDRs) == 0 {
		note("clusterCIDR is not set: traffic that enters the cluster by this node on its way to a ClusterIP keeps its source, unless masqueradeAll is set")
	}
	if c.MinSyncPeriod > slowestUseful {
		out = append(out, Note{Warning: true, Text: fmt.Sprintf("minSyncPeriod %v: traffic goes to endpoints that are gone for up to this long; without it, changes are applied at once", c.MinSyncPeriod)})
	}
	return out
}
