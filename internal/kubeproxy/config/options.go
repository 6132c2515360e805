package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/spf13/pflag"
)

// Options is what the command line says: flags, and with --config the path of a file. NewOptions makes them, AddFlags
// binds them, and Load makes a Config of them as often as the file changes.
type Options struct {
	File     string // --config; empty: the flags are all
	WriteTo  string // --write-config-to: write the Config there and end
	Cleanup  bool   // --cleanup: remove what is in the kernel and end
	InitOnly bool   // --init-only: do what needs full rights, and end
	Version  string // --version: "false", "true" or "raw"

	flags  *pflag.FlagSet
	values v1alpha1.KubeProxyConfiguration // the flags that have a field
	apart  apart
	own    Own
}

// apart are the flags without a field, or whose field depends on other flags or on the file.
type apart struct {
	master                        string
	hostname                      string
	clusterCIDR                   string
	healthPort, metricsPort       int32
	masqueradeAll                 bool
	iptablesSync, iptablesMinSync time.Duration
	ipvsSync, ipvsMinSync         time.Duration
	taint                         string
	counters                      string
}

// DefaultStatusSocket is below a folder of the process's own, which survives it.
const DefaultStatusSocket = "/run/varco/kube-proxy.sock"

// NewOptions returns the defaults.
func NewOptions() *Options {
	o := &Options{Version: "false"}
	setDefaults(&o.values)
	return o
}

// AddFlags adds all flags. Load wants to know which of them were set, so a set of flags belongs to one Options.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	o.flags = flags
	o.addProcess(flags)
	o.addClient(flags)
	o.addTraffic(flags)
	o.addOwn(flags)
	o.addServing(flags)
	o.addConntrack(flags)
	o.addPeriods(flags)
	o.addLogging(flags)
	o.addIdle(flags)
}

func (o *Options) addProcess(flags *pflag.FlagSet) {
	flags.StringVar(&o.File, "config", "", "path of a file with a KubeProxyConfiguration. Most other flags are ignored then, and the log says which; a change of the file is taken over while the process runs")
	flags.StringVar(&o.WriteTo, "write-config-to", "", "write the configuration, complete with defaults, to this file, and exit")
	flags.BoolVar(&o.Cleanup, "cleanup", false, "remove all rules of kube-proxy from the kernel, and exit")
	flags.BoolVar(&o.InitOnly, "init-only", false, "do what needs full root privileges, and exit; afterwards CAP_NET_ADMIN is enough")
	flags.Var(versionValue{&o.Version}, "version", "print the version, and exit (raw: with details of the build)")
	flags.Lookup("version").NoOptDefVal = "true"
}

func (o *Options) addClient(flags *pflag.FlagSet) {
	c := &o.values.ClientConnection
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "path of the kubeconfig with the API server and the credentials (default: those of the pod)")
	flags.StringVar(&o.apart.master, "master", "", "address of the API server, instead of the kubeconfig's; also with --config")
	flags.StringVar(&o.apart.hostname, "hostname-override", "", "name of this node's Node object (default: the host name); also with --config")
	flags.StringVar(&c.ContentType, "kube-api-content-type", c.ContentType, "form of what is sent to the API server")
	flags.Float32Var(&c.QPS, "kube-api-qps", c.QPS, "requests a second to the API server")
	flags.Int32Var(&c.Burst, "kube-api-burst", c.Burst, "requests at once to the API server")
}

func (o *Options) addTraffic(flags *pflag.FlagSet) {
	k := &o.values
	flags.StringVar((*string)(&k.Mode), "proxy-mode", "", "iptables, ipvs or nftables: accepted for the options that belong to it. The rules are nftables in any case (default iptables)")
	flags.StringSliceVar(&k.NodePortAddresses, "nodeport-addresses", nil, `where NodePorts are served: networks of local addresses, and the words "primary" (the Node object's addresses), "localhost" and "all" (default "primary" with --proxy-mode nftables, otherwise "all", which is without loopback)`)
	flags.StringVar((*string)(&k.DetectLocalMode), "detect-local-mode", "", "how the traffic of this node's pods is told from other traffic: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix (default ClusterCIDR)")
	flags.StringVar(&o.apart.clusterCIDR, "cluster-cidr", "", "for ClusterCIDR: networks of the pods, one for each IP family, separated by commas; traffic to a ClusterIP from elsewhere is masqueraded (default: none is)")
	flags.StringVar(&k.DetectLocal.BridgeInterface, "pod-bridge-interface", "", "for BridgeInterface: name of the bridge that the pods are on")
	flags.StringVar(&k.DetectLocal.InterfaceNamePrefix, "pod-interface-name-prefix", "", "for InterfaceNamePrefix: how the names of the pods' interfaces begin")
	flags.BoolVar(&o.apart.masqueradeAll, "masquerade-all", false, "masquerade all traffic to ClusterIPs")
	flags.Int32Var(k.IPTables.MasqueradeBit, "iptables-masquerade-bit", *k.IPTables.MasqueradeBit, "bit of the packet mark that asks for masquerading, 0 to 31 (not with --proxy-mode nftables)")
	flags.BoolVar(k.IPTables.LocalhostNodePorts, "iptables-localhost-nodeports", true, "with --proxy-mode iptables: serve NodePorts at 127.0.0.1 too, where all addresses of IPv4 are served; otherwise see --nodeport-addresses")
	flags.Var(gatesValue{&k.FeatureGates}, "feature-gates", gateUsage())
}

func (o *Options) addOwn(flags *pflag.FlagSet) {
	flags.BoolVar(&o.own.LocalReject, "local-reject", false, "where a policy is Local and the node has no endpoint: refuse connections, instead of dropping them as upstream does; this flag and the next four also with --config")
	flags.BoolVar(&o.own.DrainTCP, "drain-tcp", false, "end the TCP connections to endpoints that are removed")
	flags.StringVar(&o.apart.taint, "remove-taint", "", "KEY[=VALUE][:EFFECT] of a taint to remove from the own Node as soon as its Services are served (default: none)")
	flags.StringVar(&o.own.StatusSocket, "status-socket", DefaultStatusSocket, "socket that answers about the state (empty: none)")
	flags.StringVar(&o.apart.counters, "service-counters", string(CountNothing), "what is counted for each Service: none, connections, or all (connections, packets, bytes). Counting takes about 3 µs of each new connection")
}

func (o *Options) addServing(flags *pflag.FlagSet) {
	k := &o.values
	flags.Var(addrValue{&k.BindAddress}, "bind-address", "primary address of the node, before that of the Node object; nothing is bound to it")
	flags.Var(addrPortValue{&k.HealthzBindAddress}, "healthz-bind-address", "where /healthz, /livez and /readyz are served (empty: nowhere)")
	flags.Var(addrPortValue{&k.MetricsBindAddress}, "metrics-bind-address", "where /metrics and the pages beside it are served (empty: nowhere)")
	flags.BoolVar(&k.BindAddressHardFail, "bind-address-hard-fail", false, "end with an error if one of these cannot be listened at")
	flags.BoolVar(&k.EnableProfiling, "profiling", false, "serve /debug/pprof beside the metrics")
	flags.Int32Var(k.OOMScoreAdj, "oom-score-adj", *k.OOMScoreAdj, "how soon the kernel kills the process when memory is short, -1000 (never) to 1000")
	flags.Int32Var(&o.apart.healthPort, "healthz-port", healthPort, "port of the health pages; 0: none")
	flags.Int32Var(&o.apart.metricsPort, "metrics-port", metricsPort, "port of the metrics; 0: none")
	deprecate(flags, "healthz-port", "healthz-bind-address")
	deprecate(flags, "metrics-port", "metrics-bind-address")
}

// deprecate has the flag answer with a line when it is used.
func deprecate(flags *pflag.FlagSet, name, instead string) {
	if err := flags.MarkDeprecated(name, "use --"+instead+" instead"); err != nil {
		panic(err) // the flag was added a moment ago
	}
}

func (o *Options) addConntrack(flags *pflag.FlagSet) {
	c := &o.values.Conntrack
	flags.Int32Var(c.MaxPerCore, "conntrack-max-per-core", *c.MaxPerCore, "connections that the kernel tracks, for each CPU (0: leave the limit as it is)")
	flags.Int32Var(c.Min, "conntrack-min", *c.Min, "connections that it tracks at least, if --conntrack-max-per-core is not 0")
	flags.DurationVar(&c.TCPEstablishedTimeout.Duration, "conntrack-tcp-timeout-established", c.TCPEstablishedTimeout.Duration, "when idle TCP connections are forgotten (0: as it is)")
	flags.DurationVar(&c.TCPCloseWaitTimeout.Duration, "conntrack-tcp-timeout-close-wait", c.TCPCloseWaitTimeout.Duration, "when half-closed TCP connections are forgotten (0: as it is)")
	flags.BoolVar(&c.TCPBeLiberal, "conntrack-tcp-be-liberal", false, "track TCP packets out of the window too")
	flags.DurationVar(&c.UDPTimeout.Duration, "conntrack-udp-timeout", 0, "when unanswered UDP flows are forgotten (0: as it is)")
	flags.DurationVar(&c.UDPStreamTimeout.Duration, "conntrack-udp-timeout-stream", 0, "when answered UDP flows are forgotten (0: as it is)")
}

func (o *Options) addPeriods(flags *pflag.FlagSet) {
	a := &o.apart
	flags.DurationVar(&o.values.ConfigSyncPeriod.Duration, "config-sync-period", defaultConfigSync, "no effect: no object is forgotten that would have to be looked at again")
	flags.DurationVar(&a.iptablesSync, "iptables-sync-period", defaultSyncPeriod, "half of the time for which a change may wait before /healthz fails; in any mode but ipvs. What has failed is tried again sooner")
	flags.DurationVar(&a.iptablesMinSync, "iptables-min-sync-period", defaultMinSyncPeriod, "least pause between two changes, in any mode but ipvs; if it is not set, there is none")
	flags.DurationVar(&a.ipvsSync, "ipvs-sync-period", defaultSyncPeriod, "as --iptables-sync-period, in mode ipvs")
	flags.DurationVar(&a.ipvsMinSync, "ipvs-min-sync-period", defaultMinSyncPeriod, "as --iptables-min-sync-period, in mode ipvs")
}

// fromFlags forms the configuration as upstream does without --config, and says whether a pause between changes was
// asked for.
func (o *Options) fromFlags() (k *v1alpha1.KubeProxyConfiguration, paced bool) {
	k = o.values.DeepCopy()
	of := modeSettingsOf(k)
	// Upstream has one period for all modes, and its default is the one of iptables.
	*of.syncPeriod, *of.minSyncPeriod = metav1.Duration{Duration: defaultSyncPeriod}, metav1.Duration{Duration: defaultMinSyncPeriod}
	family, sync, least := "iptables", o.apart.iptablesSync, o.apart.iptablesMinSync
	if Mode(k.Mode) == ModeIPVS {
		family, sync, least = "ipvs", o.apart.ipvsSync, o.apart.ipvsMinSync
	}
	if o.flags.Changed(family + "-sync-period") {
		of.syncPeriod.Duration = sync
	}
	if paced = o.flags.Changed(family + "-min-sync-period"); paced {
		of.minSyncPeriod.Duration = least
	}
	*of.masqueradeAll = o.apart.masqueradeAll
	k.ClusterCIDR = o.apart.clusterCIDR
	k.HealthzBindAddress = o.fromPort(k.HealthzBindAddress, o.apart.healthPort, healthPort)
	k.MetricsBindAddress = o.fromPort(k.MetricsBindAddress, o.apart.metricsPort, metricsPort)
	return k, paced
}

// fromPort applies a deprecated flag: a port of 0 means nowhere, any other is for an address without one. Such flags do
// not go into a file that is written, which has no words for nowhere.
func (o *Options) fromPort(address string, port, usual int32) string {
	if o.WriteTo != "" {
		port = usual
	}
	if port == 0 {
		return ""
	}
	return withPort(address, int(port))
}

// FlagValues returns all flags with their values, as upstream shows them at /flagz.
func (o *Options) FlagValues() map[string]string {
	out := map[string]string{}
	o.flags.VisitAll(func(f *pflag.Flag) { out[f.Name] = f.Value.String() })
	return out
}
