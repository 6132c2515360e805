package service

import "slices"

// Topology is how topology hints choose among the endpoints of policy Cluster.
type Topology string

// The ways, named as those of the field spec.trafficDistribution, which has hints written.
const (
	AnyPlace Topology = ""               // hints do not choose
	SameNode Topology = "PreferSameNode" // those meant for this node
	SameZone Topology = "PreferSameZone" // those meant for this node's zone
)

// Reason tells why an endpoint takes no new connections from here.
type Reason string

// The reasons.
const (
	NotReady       Reason = "not ready"
	NotServing     Reason = "terminating and no longer serving"
	OthersReady    Reason = "terminating, and others are ready"
	OtherNode      Reason = "meant for other nodes by its topology hints"
	OtherZone      Reason = "meant for other zones by its topology hints"
	NotLocal       Reason = "not on this node, and the policy is Local"
	NoWeight       Reason = "has weight 0, and others have more"
	Duplicate      Reason = "listed again, and the other listing counts"
	OtherFamily    Reason = "not of the IP family of the address"
	NoSuchPort     Reason = "its slice has no port of that name and protocol"
	usedAsABackend Reason = ""
)

// choice decides which candidates of a Service port take new connections. It is what upstream's CategorizeEndpoints
// (pkg/proxy/topology.go) does: ready endpoints or, if there are none, those that terminate but still serve (KEP-1669),
// decided apart for the policies Cluster and Local. Topology hints matter for ready endpoints and policy Cluster only.
type choice struct {
	node, zone string
	topology   Topology

	ready, draining           bool // there are some, anywhere
	localReady, localDraining bool
}

// newChoice looks at all candidates.
func newChoice(node, zone string, cs []candidate) choice {
	ch := choice{node: node, zone: zone}
	hinted := hints{everyNode: true, everyZone: true}
	for _, c := range cs {
		switch local := c.local(node); {
		case c.Ready:
			ch.ready = true
			ch.localReady = ch.localReady || local
			hinted.add(c.Endpoint, node, zone)
		case c.draining():
			ch.draining = true
			ch.localDraining = ch.localDraining || local
		}
	}
	if ch.ready {
		ch.topology = hinted.topology()
	}
	return ch
}

func (e *Endpoint) draining() bool { return !e.Ready && e.Serving && e.Terminating }

// hints is what the topology hints of all ready endpoints come to. A single endpoint without a hint switches them off,
// because the others may not be enough for the traffic of all.
type hints struct {
	everyNode, thisNode bool
	everyZone, thisZone bool
}

func (h *hints) add(e *Endpoint, node, zone string) {
	h.everyNode = h.everyNode && len(e.ForNodes) > 0
	h.everyZone = h.everyZone && len(e.ForZones) > 0
	h.thisNode = h.thisNode || slices.Contains(e.ForNodes, node)
	h.thisZone = h.thisZone || slices.Contains(e.ForZones, zone)
}

func (h hints) topology() Topology {
	switch {
	case h.everyNode && h.thisNode:
		return SameNode
	case h.everyZone && h.thisZone:
		return SameZone
	}
	return AnyPlace
}

// any tells whether an endpoint is usable anywhere.
func (ch choice) any() bool { return ch.ready || ch.draining }

// cluster tells why a candidate takes no connections under policy Cluster.
func (ch choice) cluster(c candidate) Reason {
	if r := condition(c.Endpoint, ch.ready); r != usedAsABackend {
		return r
	}
	switch {
	case ch.topology == SameNode && !slices.Contains(c.ForNodes, ch.node):
		return OtherNode
	case ch.topology == SameZone && !slices.Contains(c.ForZones, ch.zone):
		return OtherZone
	}
	return usedAsABackend
}

// local tells why a candidate takes no connections under policy Local.
func (ch choice) local(c candidate) Reason {
	if !c.local(ch.node) {
		return NotLocal
	}
	return condition(c.Endpoint, ch.localReady)
}

// condition tells why an endpoint is not used, given whether those it is compared with have a ready one.
func condition(e *Endpoint, anyReady bool) Reason {
	switch {
	case e.Ready:
		return usedAsABackend
	case !e.Terminating:
		return NotReady
	case !e.Serving:
		return NotServing
	case anyReady:
		return OthersReady
	}
	return usedAsABackend
}
