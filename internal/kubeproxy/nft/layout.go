package nft

import (
	"fmt"

	"varco.dev/internal/service"
)

// TableName is the name of the two tables, `ip` and `ip6`. Everything in them is ours, nothing outside is touched.
const TableName = "varco-kube-proxy"

// Set is one of the sets and maps whose elements make up the Services.
type Set uint8

// The sets and maps of a table.
const (
	// Services maps the address, protocol and port of a frontend to the number of its backends, its Class, and the id
	// of its Service port.
	Services Set = iota
	// NodePorts maps the protocol and port of a NodePort to the same.
	NodePorts
	// Endpoints maps the id of a Service port and a slot, 0 to n-1, to the address and port of a backend.
	Endpoints
	// NodeAddrs has the addresses of the node at which NodePorts are served.
	NodeAddrs
	// Hairpins has (address, address, protocol, port) of local backends: the flows of a backend to itself.
	Hairpins
	// Generations has one element, that of the last transaction with Replace.
	Generations
	numSets
)

// String returns the name of the set in the table.
func (s Set) String() string {
	return [...]string{"services", "nodeports", "endpoints", "node-addrs", "hairpins", "generation"}[s]
}

// comment says what a set is for, to people who list the table.
func (s Set) comment() string {
	return [...]string{
		Services:  "ClusterIPs, LoadBalancer and external IPs: backends . class . id",
		NodePorts: "NodePorts: backends . class . id",
		Endpoints: "id . slot of a Service port: its backend",
		NodeAddrs: "addresses that serve NodePorts",
		Hairpins:  "local backends, for connections to themselves",

		Generations: "who wrote this table last",
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
	random
)

// key and value return the fields of the set's elements; value is nil for a set that is not a map.
func (s Set) key() []field {
	return [...][]field{
		Services:  {addr, proto, port},
		NodePorts: {proto, port},
		Endpoints: {id, slot},
		NodeAddrs: {addr},
		Hairpins:  {addr, addr, proto, port},

		Generations: {random, random},
	}[s]
}

// The values of Services and NodePorts begin with a field that no rule uses: see get in apply_exprs.go.
func (s Set) value() []field {
	return [...][]field{
		Services:  {count, class, id},
		NodePorts: {count, class, id},
		Endpoints: {addr, port},

		Generations: nil,
	}[s]
}

// size returns the bytes of a field in a register: all but IPv6 addresses take one of 4 bytes.
func (f field) size(family service.Family) int {
	if f == addr && family == service.IPv6 {
		return 16
	}
	return 4
}

// Path is the way a connection takes to its backend: it decides the masquerading, and which map tells the id.
type Path uint8

// The paths.
const (
	PathCluster  Path = iota + 1 // to a ClusterIP
	PathExternal                 // to a LoadBalancer or external IP
	PathNodePort                 // to a NodePort
)

// String returns the word for the path in the names of chains.
func (p Path) String() string { return [...]string{"", "cluster", "external", "nodeport"}[p] }

// Class is what a frontend has in common with all others that are handled by the same chain: its path, its protocol, and
// the number of its backends, because nftables draws random numbers below a constant only. The count is limited to
// MaxBackends.
//
// Frontends point to a class and not to a chain: the kernel validates the whole table again whenever a verdict is added
// to a map, and a class is not a verdict. So that cost grows with the number of distinct classes, not of Services.
type Class uint32

// MaxBackends is the highest number of backends that one Service port can spread over.
const MaxBackends = 1<<16 - 1

// ClassOf returns the class of n backends reached by path.
func ClassOf(path Path, p service.Protocol, n int) Class {
	return Class(uint32(path)<<24 | uint32(p)<<16 | uint32(n))
}

// Path returns the path of the class.
func (c Class) Path() Path { return Path(c >> 24) }

// Protocol returns the protocol of the class.
func (c Class) Protocol() service.Protocol { return service.Protocol(c >> 16) }

// Backends returns the number of backends of the class.
func (c Class) Backends() int { return int(c & MaxBackends) }

// String returns the name of the chain of the class, such as "cluster-tcp-3".
func (c Class) String() string { return fmt.Sprintf("%s-%s-%d", c.Path(), c.Protocol(), c.Backends()) }
