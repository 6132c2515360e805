package config

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

// Upstream's defaults: pkg/proxy/apis/config/v1alpha1/defaults.go, pkg/cluster/ports and pkg/kubelet/qos.
const (
	healthPort  = 10256
	metricsPort = 10249

	defaultBindAddress     = "0.0.0.0"
	defaultOOMScoreAdj     = -999
	defaultMasqueradeBit   = 14
	defaultMaxPerCore      = 32 << 10
	defaultConntrackMin    = 128 << 10
	defaultTCPEstablished  = 24 * time.Hour
	defaultTCPCloseWait    = time.Hour
	defaultSyncPeriod      = 30 * time.Second
	defaultMinSyncPeriod   = time.Second
	defaultConfigSync      = 15 * time.Minute
	defaultQPS             = 5
	defaultBurst           = 10
	defaultContentType     = "application/vnd.kubernetes.protobuf"
	defaultMode            = v1alpha1.ProxyMode(ModeIPTables)
	defaultDetectLocalMode = v1alpha1.LocalMode(ByClusterCIDR)
)

// The words of nodePortAddresses.
const (
	wordPrimary   = "primary"
	wordLocalhost = "localhost"
	wordAll       = "all"
)

// setDefaults fills in what the file leaves out, as upstream does while it decodes.
func setDefaults(k *v1alpha1.KubeProxyConfiguration) {
	k.BindAddress = cmp.Or(k.BindAddress, defaultBindAddress)
	health, metrics := "0.0.0.0", "127.0.0.1"
	if netutils.ParseIPSloppy(k.BindAddress).To4() == nil {
		health, metrics = "::", "::1"
	}
	k.HealthzBindAddress = withPort(cmp.Or(k.HealthzBindAddress, health), healthPort)
	k.MetricsBindAddress = withPort(cmp.Or(k.MetricsBindAddress, metrics), metricsPort)

	orDefault(&k.OOMScoreAdj, defaultOOMScoreAdj)
	setModeDefaults(k)
	setConntrackDefaults(&k.Conntrack)
	k.ConfigSyncPeriod = orDuration(k.ConfigSyncPeriod, defaultConfigSync)

	k.ClientConnection.ContentType = cmp.Or(k.ClientConnection.ContentType, defaultContentType)
	k.ClientConnection.QPS = cmp.Or(k.ClientConnection.QPS, defaultQPS)
	k.ClientConnection.Burst = cmp.Or(k.ClientConnection.Burst, defaultBurst)
	if k.FeatureGates == nil {
		k.FeatureGates = map[string]bool{}
	}
	logsapi.SetRecommendedLoggingConfiguration(&k.Logging)
}

func setModeDefaults(k *v1alpha1.KubeProxyConfiguration) {
	k.IPTables.SyncPeriod = orDuration(k.IPTables.SyncPeriod, defaultSyncPeriod)
	k.IPTables.MinSyncPeriod = orDuration(k.IPTables.MinSyncPeriod, defaultMinSyncPeriod)
	orDefault(&k.IPTables.MasqueradeBit, defaultMasqueradeBit)
	orDefault(&k.IPTables.LocalhostNodePorts, true)
	k.IPVS.SyncPeriod = orDuration(k.IPVS.SyncPeriod, defaultSyncPeriod)
	k.NFTables.SyncPeriod = orDuration(k.NFTables.SyncPeriod, defaultSyncPeriod)
	k.NFTables.MinSyncPeriod = orDuration(k.NFTables.MinSyncPeriod, defaultMinSyncPeriod)
	orDefault(&k.NFTables.MasqueradeBit, defaultMasqueradeBit)
}

func setConntrackDefaults(c *v1alpha1.KubeProxyConntrackConfiguration) {
	orDefault(&c.MaxPerCore, defaultMaxPerCore)
	orDefault(&c.Min, defaultConntrackMin)
	orDefault(&c.TCPEstablishedTimeout, metav1.Duration{Duration: defaultTCPEstablished})
	orDefault(&c.TCPCloseWaitTimeout, metav1.Duration{Duration: defaultTCPCloseWait})
}

// setPlatformDefaults fills in what upstream decides once the flags and the file are read.
func setPlatformDefaults(k *v1alpha1.KubeProxyConfiguration) {
	k.Mode = cmp.Or(k.Mode, defaultMode)
	if Mode(k.Mode) == ModeNFTables && len(k.NodePortAddresses) == 0 {
		k.NodePortAddresses = []string{wordPrimary}
	}
	k.DetectLocalMode = cmp.Or(k.DetectLocalMode, defaultDetectLocalMode)
}

// keepMode leaves the settings of the mode's own section, and sets those of the others to zero: upstream's own form of
// the configuration has one for all modes (conversion.go), and this is how it is written.
func keepMode(k *v1alpha1.KubeProxyConfiguration) {
	of := modeSettingsOf(k)
	sync, least, all := *of.syncPeriod, *of.minSyncPeriod, *of.masqueradeAll
	var none metav1.Duration
	k.IPTables.SyncPeriod, k.IPTables.MinSyncPeriod, k.IPTables.MasqueradeAll = none, none, false
	k.IPVS.SyncPeriod, k.IPVS.MinSyncPeriod = none, none
	k.NFTables.SyncPeriod, k.NFTables.MinSyncPeriod, k.NFTables.MasqueradeAll = none, none, false
	*of.syncPeriod, *of.minSyncPeriod, *of.masqueradeAll = sync, least, all
	k.PortRange = "" // upstream forgets it too
}

// modeSettings are those that each mode has in a section of its own.
type modeSettings struct {
	section       string // of the periods, as the file calls it
	syncPeriod    *metav1.Duration
	minSyncPeriod *metav1.Duration
	masqueradeAll *bool
	masqueradeBit *int32
}

// modeSettingsOf finds the settings of the mode. IPVS shares with iptables what concerns masquerading.
func modeSettingsOf(k *v1alpha1.KubeProxyConfiguration) modeSettings {
	switch Mode(k.Mode) {
	case ModeNFTables:
		n := &k.NFTables
		return modeSettings{"nftables", &n.SyncPeriod, &n.MinSyncPeriod, &n.MasqueradeAll, n.MasqueradeBit}
	case ModeIPVS:
		return modeSettings{"ipvs", &k.IPVS.SyncPeriod, &k.IPVS.MinSyncPeriod, &k.IPTables.MasqueradeAll, k.IPTables.MasqueradeBit}
	}
	i := &k.IPTables
	return modeSettings{"iptables", &i.SyncPeriod, &i.MinSyncPeriod, &i.MasqueradeAll, i.MasqueradeBit}
}

func orDefault[T any](p **T, value T) {
	if *p == nil {
		*p = ptr.To(value)
	}
}

func orDuration(d metav1.Duration, value time.Duration) metav1.Duration {
	return metav1.Duration{Duration: cmp.Or(d.Duration, value)}
}

// withPort adds the port to an address that has none. What is no address stays as it is, for the check to find.
func withPort(address string, port int) string {
	if _, _, err := net.SplitHostPort(address); err == nil || netutils.ParseIPSloppy(address) == nil {
		return address
	}
	return net.JoinHostPort(address, strconv.Itoa(port))
}

// parseAddr reads an address as Kubernetes does: leading zeros are decimal.
func parseAddr(s string) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	return a.Unmap(), ok
}

// parsePrefix reads a network in the same way, and masks it.
func parsePrefix(s string) (netip.Prefix, bool) {
	_, n, err := netutils.ParseCIDRSloppy(strings.TrimSpace(s))
	if err != nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a, ones), ok && !a.Is4In6()
}

// parseAddrPort reads an address with a port from 1 on.
func parseAddrPort(s string) (netip.AddrPort, bool) {
	host, service, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, false
	}
	a, ok := parseAddr(host)
	port, err := strconv.ParseUint(service, 10, 16)
	return netip.AddrPortFrom(a, uint16(port)), ok && err == nil && port > 0
}
