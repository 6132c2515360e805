package service

import (
	"cmp"
	"net/netip"
	"slices"
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

// Frontend is an address and port at which clients reach a Service port. A NodePort has no address of its own: it is
// served at the node's addresses (Changes.NodeAddrs).
type Frontend struct {
	Kind Kind
	Addr netip.AddrPort
}

// Compare orders frontends by kind, then address.
func (f Frontend) Compare(g Frontend) int {
	return cmp.Or(cmp.Compare(f.Kind, g.Kind), f.Addr.Compare(g.Addr))
}

// Backend is an endpoint that new connections may be sent to.
type Backend struct {
	Addr  netip.AddrPort
	Local bool // it runs on this node
}

// Compare orders backends by address.
func (b Backend) Compare(c Backend) int { return b.Addr.Compare(c.Addr) }

// Port is the desired state of one Service port in one IP family. It is immutable.
type Port struct {
	Key       Key
	Frontends []Frontend // sorted; those that no other Service has a better claim to
	Backends  []Backend  // sorted; empty: clients are to be rejected
	Lost      []Loss     // sorted by Frontend
}

// Loss is a frontend that a Service asks for and another one has.
type Loss struct {
	Frontend Frontend
	Winner   Key
}

func (p *Port) equal(q *Port) bool {
	return p.Key == q.Key && slices.Equal(p.Frontends, q.Frontends) && slices.Equal(p.Backends, q.Backends) &&
		slices.Equal(p.Lost, q.Lost)
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

// Changes is what is different in a Table since it was last asked.
type Changes struct {
	Ports     []Change // sorted by key
	OldNode   []netip.Addr
	NodeAddrs []netip.Addr // where NodePorts are served; sorted
}

// Empty tells whether nothing changed.
func (c Changes) Empty() bool { return len(c.Ports) == 0 && slices.Equal(c.OldNode, c.NodeAddrs) }
