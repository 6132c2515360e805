package service

import (
	"net/netip"
	"slices"
)

// CIDRs returns the networks that ClusterIPs are taken from, sorted.
func (t *Table) CIDRs() []netip.Prefix { return slices.Clone(t.cidrs) }

// ClusterIP returns the Service whose ClusterIP an address is. It looks at all Services: it is for people who ask.
func (t *Table) ClusterIP(a netip.Addr) (Name, bool) {
	for name, e := range t.entries {
		if e.service != nil && slices.Contains(e.service.ClusterIPs, a) {
			return name, true
		}
	}
	return Name{}, false
}

// HasLocal tells whether an address is that of an endpoint on this node. It looks at all endpoints: it is for people who
// ask.
func (t *Table) HasLocal(a netip.Addr) bool {
	for _, e := range t.entries {
		for _, s := range e.slices {
			for i := range s.Endpoints {
				if s.Endpoints[i].Addr == a && s.Endpoints[i].Node == t.node {
					return true
				}
			}
		}
	}
	return false
}
