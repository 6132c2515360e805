package config

import (
	"net/netip"
	"reflect"
	"time"

	"k8s.io/kube-proxy/config/v1alpha1"
)

// Mode is the kind of rules that the configuration was written for. The proxy programs nftables whatever it says; the
// mode chooses the section of the file that counts, and the default of the addresses of NodePorts.
type Mode string

// The modes of kube-proxy on Linux. An empty one is ModeIPTables, as upstream's.
const (
	ModeIPTables Mode = "iptables"
	ModeIPVS     Mode = "ipvs"
	ModeNFTables Mode = "nftables"
)

// Config is all that was configured: checked, complete with defaults, and the same for as long as it lives. Holders
// must not change what its slices and maps hold.
type Config struct {
	Mode             Mode
	HostnameOverride string     // trimmed and in lower case; empty: the host's name
	NodeIP           netip.Addr // from bindAddress, before the addresses of the Node object; invalid: not given

	Health       netip.AddrPort // where /healthz, /livez and /readyz are served; invalid: nowhere
	Metrics      netip.AddrPort // where /metrics is served; invalid: nowhere
	BindHardFail bool           // an address that cannot be listened at ends the process
	Profiling    bool           // serve /debug/pprof beside the metrics

	Client       Client
	DetectLocal  DetectLocal
	NodePorts    NodePorts
	ExternalIPs  bool // the gate AllowServiceExternalIPs: serve the external IPs of Services
	Masquerade   Masquerade
	Conntrack    Conntrack
	OOMScoreAdj  int // -1000 to 1000
	Logging      Logging
	FeatureGates map[string]bool // as given, unknown ones too

	SyncPeriod    time.Duration // when a change has waited for twice this, health is lost
	MinSyncPeriod time.Duration // least pause between two changes if it was asked for; 0, the default: none

	Own Own

	// Notes are for the log, once.
	Notes []Note

	effective *v1alpha1.KubeProxyConfiguration
	source    string // content of the file
}

// Client is the connection to the API server.
type Client struct {
	Kubeconfig         string // path; with Master empty too: the credentials of the pod
	Master             string // URL, before that of the kubeconfig
	QPS                float32
	Burst              int
	ContentType        string
	AcceptContentTypes string // empty: as ContentType
}

// LocalMode says how traffic of this node's pods is told from other traffic.
type LocalMode string

// The modes, as upstream spells them.
const (
	ByClusterCIDR         LocalMode = "ClusterCIDR"
	ByNodeCIDR            LocalMode = "NodeCIDR"
	ByBridgeInterface     LocalMode = "BridgeInterface"
	ByInterfaceNamePrefix LocalMode = "InterfaceNamePrefix"
)

// DetectLocal is a mode with what it needs. ByNodeCIDR takes its networks from the Node's spec.podCIDRs.
type DetectLocal struct {
	Mode      LocalMode
	CIDRs     []netip.Prefix // ByClusterCIDR: one of each IP family at most, masked; none: no pod is told from others
	Interface string         // ByBridgeInterface: its name; ByInterfaceNamePrefix: how the names begin
}

// NodePorts says at which addresses of the node NodePorts are served: the primary ones, those within the networks, or
// both. A family with neither is served at all addresses, which is upstream's rule.
type NodePorts struct {
	Words    []string       // as configured, or the default; nil: all
	Primary  bool           // the addresses of the Node object
	Networks []netip.Prefix // masked; the words "localhost" and "all" are here as networks
}

// Localhost says whether the addresses name loopback of a family: by the word localhost, or by a network within
// 127.0.0.0/8 or ::1/128. That "all" contains loopback does not count.
func (n NodePorts) Localhost(is4 bool) bool {
	for _, p := range n.Networks {
		if p.Addr().Is4() == is4 && p.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// Masquerade says which bit of the packet mark, 0 to 31, asks for masquerading, and whether all traffic to ClusterIPs
// is masqueraded.
type Masquerade struct {
	Bit int
	All bool
}

// Mark is the mark with the bit alone.
func (m Masquerade) Mark() uint32 { return 1 << m.Bit }

// Conntrack has the kernel's settings. Zero leaves one as it is.
type Conntrack struct {
	MaxPerCore     int // connections for each CPU
	Min            int // connections at least, if MaxPerCore is not zero
	TCPEstablished time.Duration
	TCPCloseWait   time.Duration
	TCPBeLiberal   bool
	UDP            time.Duration
	UDPStream      time.Duration
}

// Logging says how to log.
type Logging struct {
	Format    string // text or json
	Verbosity int    // as Kubernetes' -v
}

// Own are the options that upstream does not have.
type Own struct {
	LocalReject  bool     // refuse, instead of dropping, where policy Local has no local endpoint
	DrainTCP     bool     // end the TCP connections to endpoints that are removed
	RemoveTaint  Taint    // removed from the own Node once all is applied; zero: none
	StatusSocket string   // path of the socket that answers about the state; empty: none
	Counters     Counters // what is counted for each Service
}

// Taint selects taints of a Node. An empty Value or Effect matches any.
type Taint struct {
	Key    string
	Value  string
	Effect string // NoSchedule, PreferNoSchedule, NoExecute or empty
}

// Counters says what is counted for each Service.
type Counters string

// What may be counted.
const (
	CountNothing     Counters = "none"
	CountConnections Counters = "connections"
	CountAll         Counters = "all" // connections, packets and bytes
)

// Note is a remark about the configuration.
type Note struct {
	Warning bool // something is probably not as it was meant
	Text    string
}

// Equal says whether two configurations lead to the same behaviour. Notes and spelling do not count.
func (c Config) Equal(d Config) bool {
	c.Notes, d.Notes, c.source, d.source = nil, nil, "", ""
	return reflect.DeepEqual(c, d)
}
