package service

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Kind tells what sort of address a Frontend is.
type Kind uint8

// The kinds of frontends, in the order in which they win an address that several Services claim: nobody can take over
// another Service's ClusterIP by naming it as an external IP (CVE-2020-8554).
const (
	ClusterIP Kind = iota
	NodePort
	LoadBalancerIP
	ExternalIP
)

// String returns the kind as Kubernetes spells it.
func (k Kind) String() string {
	return [...]string{"ClusterIP", "NodePort", "LoadBalancerIP", "ExternalIP"}[k]
}

// MarshalText returns String, so that JSON holds the word.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Frontend is an address and port at which clients reach a Service port. A NodePort has no address of its own: it is
// served at the node's addresses (Changes.NodeAddrs).
type Frontend struct {
	Kind Kind           `json:"kind"`
	Addr netip.AddrPort `json:"addr"`
}

// Compare orders frontends by kind, then address.
func (f Frontend) Compare(g Frontend) int {
	return cmp.Or(cmp.Compare(f.Kind, g.Kind), f.Addr.Compare(g.Addr))
}

// Policy tells which endpoints the clients of a frontend may be sent to.
type Policy uint8

// The policies, as Kubernetes names them.
const (
	PolicyCluster Policy = iota // all, or those that topology hints choose for this node
	PolicyLocal                 // those on this node
)

// String returns the policy as Kubernetes spells it.
func (p Policy) String() string { return [...]string{"Cluster", "Local"}[p] }

// MarshalText returns String, so that JSON holds the word.
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Balance is how a new connection's backend is chosen (annotation varco.dev/balance).
type Balance uint8

// The ways to choose a backend.
const (
	Random       Balance = iota // uniformly, by weight
	Maglev                      // by a consistent hash of source and destination address and port
	HashSourceIP                // by a hash of the client's address
)

// String returns the word of the annotation.
func (b Balance) String() string { return [...]string{"random", "maglev", "hash-source-ip"}[b] }

// MarshalText returns String, so that JSON holds the word.
func (b Balance) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// Backend is an endpoint that new connections may be sent to.
type Backend struct {
	Addr   netip.AddrPort
	Local  bool   // it runs on this node
	Weight uint16 // its share of new connections, relative to the others; 0 counts as 1, and a Table never says 0
}

// Compare orders backends by address.
func (b Backend) Compare(c Backend) int { return b.Addr.Compare(c.Addr) }

// Port is the desired state of one Service port in one IP family. It is immutable.
type Port struct {
	Key       Key
	Frontends []Frontend // sorted; those that no other Service has a better claim to
	Lost      []Loss     // sorted by Frontend

	// Which endpoints take new connections, by the policy of the frontend. Local is nil unless one of the policies is
	// Local; Cluster is nil if no frontend can use it. Both are sorted.
	Cluster, Local []Backend
	// HasEndpoints tells whether any endpoint is usable, be it elsewhere. If none is, clients are rejected; if one is, but
	// the policy leaves none, they get no answer, so that they try elsewhere.
	HasEndpoints bool
	// Serving are the endpoints to which flows that exist may go on, whatever the policies, and Listed all that there are,
	// whatever their condition; sorted. They may share memory with Cluster.
	Serving, Listed []Backend

	Internal Policy        // of the ClusterIP
	External Policy        // of NodePort, load-balancer and external IPs
	Affinity time.Duration // for how long a client keeps its backend after its last new connection; 0: not at all
	Balance  Balance
	// Sources are the only networks that load-balancer IPs may be reached from; nil: all.
	Sources []netip.Prefix
}

// Backends returns the endpoints that take new connections to the frontends of a kind.
func (p *Port) Backends(k Kind) []Backend {
	if p.PolicyOf(k) == PolicyLocal {
		return p.Local
	}
	return p.Cluster
}

// PolicyOf returns the policy for the frontends of a kind.
func (p *Port) PolicyOf(k Kind) Policy {
	if k == ClusterIP {
		return p.Internal
	}
	return p.External
}

// Loss is a frontend that a Service asks for and another one has.
type Loss struct {
	Frontend Frontend
	Winner   Key
}

func (p *Port) equal(q *Port) bool {
	return p.Key == q.Key && slices.Equal(p.Frontends, q.Frontends) && slices.Equal(p.Lost, q.Lost) &&
		slices.Equal(p.Cluster, q.Cluster) && slices.Equal(p.Local, q.Local) && slices.Equal(p.Serving, q.Serving) &&
		slices.Equal(p.Listed, q.Listed) &&
		p.HasEndpoints == q.HasEndpoints && p.Internal == q.Internal && p.External == q.External &&
		p.Affinity == q.Affinity && p.Balance == q.Balance && slices.Equal(p.Sources, q.Sources)
}

// Change is one Port before and after. Old is nil for a new one, New for one that is gone.
type Change struct{ Old, New *Port }

// Key returns the key of the Port that changed.
func (c Change) Key() Key {
	if c.New != nil {
		return c.New.Key
	}
	return c.Old.Key
}

// HealthCheck is what a Service asks for that wants its node's health known to load balancers: type LoadBalancer with
// external policy Local.
type HealthCheck struct {
	Service Name
	Port    uint16
	// Families tells in which families the Service has a ClusterIP, and with it a health check: IPv4, IPv6.
	Families [2]bool
	Local    [2]int // ready endpoints on this node, of any port, distinct addresses: of IPv4, of IPv6
}

// HealthChange is a HealthCheck before and after. Old is nil for a new one, New for one that is gone.
type HealthChange struct{ Old, New *HealthCheck }

// Changes is what is different in a Table since it was last asked.
type Changes struct {
	Ports  []Change       // sorted by key
	Health []HealthChange // sorted by Service
	// NodeAddrs is where NodePorts are served, sorted: addresses of the node, loopback ones only if they are to serve them
	// too. The unspecified address of a family stands for all local addresses of the family but the loopback ones.
	OldNode, NodeAddrs []netip.Addr
	// CIDRs are the networks that ClusterIPs are taken from, sorted. What no Service has of them leads nowhere.
	OldCIDRs, CIDRs []netip.Prefix
	// Triggers are the times at which what the endpoints depend on had changed (annotation
	// endpoints.kubernetes.io/last-change-trigger-time), one for each slice that was set.
	Triggers []time.Time
}

// Empty tells whether there is nothing for a data plane to do.
func (c Changes) Empty() bool {
	return len(c.Ports) == 0 && slices.Equal(c.OldNode, c.NodeAddrs) && slices.Equal(c.OldCIDRs, c.CIDRs)
}
