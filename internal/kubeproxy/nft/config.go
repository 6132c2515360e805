package nft

import (
	"net/netip"

	"varco.dev/internal/service"
)

// Config is what the fixed rules depend on.
type Config struct {
	Families       []service.Family // required
	MasqueradeMark uint32           // required: the bit of the packet mark that asks for masquerading
	MasqueradeAll  bool             // masquerade everything that goes to a ClusterIP
	Detector       Detector         // optional: which connections come from pods of this node
	LocalReject    bool             // reject connections to frontends whose endpoints are all on other nodes, instead of dropping them
	Counters       Counters         // what is counted for each frontend
	AffinitySize   uint32           // clients that are remembered in each family; default: DefaultAffinitySize
	NetNS          int              // optional: descriptor of the network namespace to work in; default: own
}

// DefaultAffinitySize is how many pairs of client and Service are remembered for session affinity in each family. One takes
// about 150 bytes in the kernel. Beyond it, new clients are served without affinity.
const DefaultAffinitySize = 1 << 17

// Detector tells which connections come from pods of this node; at most one of its fields is set. Without any, nobody knows,
// and what depends on it does not happen: masquerading what comes to ClusterIPs from elsewhere, and policy Local being lifted
// for pods of the node.
type Detector struct {
	CIDRs           []netip.Prefix // networks of the pods; the first of each family counts, as upstream
	Bridge          string         // name of the interface that pods are behind
	InterfacePrefix string         // what the names of the pods' interfaces begin with
}

// affinitySize returns the size in force.
func (c Config) affinitySize() uint32 {
	if c.AffinitySize == 0 {
		return DefaultAffinitySize
	}
	return c.AffinitySize
}
