package nft

import "varco.dev/internal/service"

// TableName is the name of the two tables, `ip` and `ip6`. Everything in them is ours, nothing outside is touched.
const TableName = "varco-kube-proxy"

// Set is one of the sets and maps whose elements make up the Services.
type Set uint8

// The sets and maps of a table. An id is that of a set of backends: a Service port has one for policy Cluster, which is
// even, and the next one for policy Local.
const (
	// Services maps the address, protocol and port of a frontend to the number of its slots, its Class, and the id of its
	// backends; NodePorts does the same for the protocol and port of a NodePort.
	Services Set = iota
	NodePorts
	// Shortcuts and NodePortShortcuts have the same keys: where connections from this node go if policy Local holds for
	// those from elsewhere.
	Shortcuts
	NodePortShortcuts
	// NoEndpoints and NoEndpointNodePorts map frontends without backends to a Refusal.
	NoEndpoints
	NoEndpointNodePorts
	// Endpoints maps an id and a slot, 0 to n-1, to the address and port of a backend.
	Endpoints
	// Tokens does the same for a number that stands for the backend, and Backends maps an id and that number to its address
	// and port. They are there for Service ports with session affinity: what clients are remembered to have.
	Tokens
	Backends
	// Hairpins has (address, address, protocol, port) of local backends: the flows of a backend to itself.
	Hairpins
	// ClusterIPs has the ClusterIPs of all Services, ServiceCIDRs the networks that they are taken from, as first and last
	// address.
	ClusterIPs
	ServiceCIDRs
	// NodeAddrs has the addresses of the node at which NodePorts are served. NodeTypes has RTN_LOCAL if they are served
	// at all local addresses, whatever these are.
	NodeAddrs
	NodeTypes
	// Firewalled has the load-balancer IPs that only some networks may reach, with protocol and port, and Sources the same
	// with the prefix length and address of each of the networks.
	Firewalled
	Sources
	// Connections and NodePortConnections count the connections to frontends, Traffic and NodePortTraffic their packets
	// and bytes, both ways.
	Connections
	NodePortConnections
	Traffic
	NodePortTraffic
	// Generations maps 0 to the Generation, and 1 to the hash of all that is not an element (see apply_read.go). Both are
	// set by a transaction with Replace; any other fails unless it finds its own.
	Generations
	numSets
)

// String returns the name of the set in the table.
func (s Set) String() string { return s.spec().name }

// comment says what a set is for, to people who list the table.
func (s Set) comment() string { return s.spec().comment }

// key and value return the fields of the set's elements; value is nil for a set that is not a map.
func (s Set) key() []field   { return s.spec().key }
func (s Set) value() []field { return s.spec().value }

// shared tells whether several Service ports may want the same element.
func (s Set) shared() bool { return s == Hairpins || s == ClusterIPs }

// points tells whether the elements of the set point to classes.
func (s Set) points() bool { return s <= NodePortShortcuts }

// counts tells whether the elements of the set are counters.
func (s Set) counts() bool { return Connections <= s && s <= NodePortTraffic }

type spec struct {
	name, comment string
	key, value    []field
}

// The values of maps whose values rules go on with begin with a field that no rule uses: see get in apply_exprs.go.
func (s Set) spec() spec {
	frontend, nodePort := []field{addr, proto, port}, []field{proto, port}
	return [...]spec{
		Services:          {"services", "ClusterIPs, LoadBalancer and external IPs: slots . class . id", frontend, []field{count, class, id}},
		NodePorts:         {"nodeports", "NodePorts: slots . class . id", nodePort, []field{count, class, id}},
		Shortcuts:         {"shortcuts", "where this node itself goes in spite of policy Local", frontend, []field{count, class, id}},
		NodePortShortcuts: {"nodeport-shortcuts", "the same for NodePorts", nodePort, []field{count, class, id}},

		NoEndpoints:         {"no-endpoints", "frontends without backends, and why", frontend, []field{count, refusal}},
		NoEndpointNodePorts: {"no-endpoint-nodeports", "the same for NodePorts", nodePort, []field{count, refusal}},

		Endpoints:    {"endpoints", "id . slot of a Service port: its backend", []field{id, slot}, []field{addr, port}},
		Tokens:       {"tokens", "id . slot of a Service port with session affinity: 0 . token of its backend", []field{id, slot}, []field{count, token}},
		Backends:     {"backends", "id . token: the backend", []field{id, token}, []field{addr, port}},
		Hairpins:     {"hairpins", "local backends, for connections to themselves", []field{addr, addr, proto, port}, nil},
		ClusterIPs:   {"cluster-ips", "ClusterIPs, for ports that no Service has", []field{addr}, nil},
		ServiceCIDRs: {"service-cidrs", "networks that ClusterIPs are taken from", []field{addr, addr}, nil},
		NodeAddrs:    {"node-addrs", "addresses that serve NodePorts", []field{addr}, nil},
		NodeTypes:    {"node-types", "local: all local addresses serve NodePorts", []field{addrType}, nil},
		Firewalled:   {"firewalled", "LoadBalancer IPs with source ranges", frontend, nil},
		Sources:      {"sources", "who may reach them: prefix length . network", []field{addr, proto, port, bits, addr}, nil},

		Connections:         {"connections", "connections to frontends", frontend, nil},
		NodePortConnections: {"nodeport-connections", "connections to NodePorts", nodePort, nil},
		Traffic:             {"traffic", "packets and bytes of frontends, both ways", frontend, nil},
		NodePortTraffic:     {"nodeport-traffic", "packets and bytes of NodePorts, both ways", nodePort, nil},

		Generations: {"generation", "who wrote this table last", []field{random}, []field{random, random}},
	}[s]
}

// field is a part of a key or a value.
type field uint8

const (
	addr field = iota
	proto
	port
	count
	class
	id
	slot
	token
	refusal
	bits
	addrType
	random
)

// size returns the bytes of a field in registers of 4 bytes.
func (f field) size(family service.Family) int {
	switch {
	case f == addr && family == service.IPv6:
		return 16
	case f == class, f == token:
		return 8
	}
	return 4
}

// Refusal is why a frontend has no backends, which decides what clients are told.
type Refusal uint32

// The refusals. Their numbers are such that no packet has them as its mark: see get in apply_exprs.go.
const (
	RefuseEmpty Refusal = 0xfefe0001 // there are no endpoints: rejected
	RefuseLocal Refusal = 0xfefe0002 // policy Local, and the endpoints are elsewhere: dropped, unless Config.LocalReject
)

// String returns a word for dumps.
func (r Refusal) String() string {
	switch r {
	case RefuseEmpty:
		return "empty"
	case RefuseLocal:
		return "not-local"
	}
	return "invalid"
}

// clusterID and localID are the ids of the two sets of backends of the Service port with a number.
func clusterID(number uint32) uint32 { return number << 1 }
func localID(number uint32) uint32   { return number<<1 | 1 }
