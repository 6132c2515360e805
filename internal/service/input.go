package service

import (
	"net/netip"
	"slices"
	"time"
)

// Service is what one Service object asks for. Its slices are not modified after it was given to a Table. All addresses
// are valid and unmapped, all port numbers of Ports are 1 to 65535.
type Service struct {
	Name            Name
	Created         time.Time // decides who keeps an address that two Services claim
	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // of status.loadBalancer.ingress
	Ports           []ServicePort

	Internal, External Policy
	Affinity           time.Duration  // of sessionAffinity ClientIP; 0: none
	Sources            []netip.Prefix // of loadBalancerSourceRanges, both families
	HealthCheckPort    uint16         // 0: none; only set where Kubernetes has one checked (type LoadBalancer, External Local)
	Balance            Balance
	Weights            []Weight // of endpoints; the first that matches counts, 1 if none does
}

// Weight gives endpoints a share of new connections (annotation varco.dev/weights). One of the first three is set.
type Weight struct {
	Addr   netip.Addr
	Node   string
	Zone   string
	Weight uint16 // 0: no new connections while others have more
}

// ServicePort is a port of a Service. NodePort is 0 where the Service has none.
type ServicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
	NodePort uint16
}

// Slice is what one EndpointSlice object says: every endpoint listens on every port.
type Slice struct {
	Name      Name
	Service   Name
	Ports     []SlicePort
	Endpoints []Endpoint
	Triggered time.Time // when what it depends on had changed; zero: not known
}

// SlicePort is a port of all endpoints of a Slice. It belongs to the Service port of the same name and protocol.
type SlicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is one address behind a Service, with the conditions that Kubernetes gives it.
type Endpoint struct {
	Addr        netip.Addr
	Node        string   // name of the node it runs on, or ""
	Zone        string   // of that node, or ""
	ForNodes    []string // topology hints: nodes that should use it
	ForZones    []string // zones that should use it
	Ready       bool
	Serving     bool
	Terminating bool
}

// Node is what a Table needs to know about the node that it is for.
type Node struct {
	Zone  string       // label topology.kubernetes.io/zone, or ""
	Addrs []netip.Addr // of the Node object; the first of each family stands for the node
}

func (n Node) equal(m Node) bool { return n.Zone == m.Zone && slices.Equal(n.Addrs, m.Addrs) }

func (s *Service) equal(r *Service) bool {
	return s.Name == r.Name && s.Created.Unix() == r.Created.Unix() && slices.Equal(s.ClusterIPs, r.ClusterIPs) &&
		slices.Equal(s.ExternalIPs, r.ExternalIPs) && slices.Equal(s.LoadBalancerIPs, r.LoadBalancerIPs) &&
		slices.Equal(s.Ports, r.Ports) && s.Internal == r.Internal && s.External == r.External &&
		s.Affinity == r.Affinity && slices.Equal(s.Sources, r.Sources) && s.HealthCheckPort == r.HealthCheckPort &&
		s.Balance == r.Balance && slices.Equal(s.Weights, r.Weights)
}

// equal compares all but the time of the trigger, which changes nothing by itself.
func (s *Slice) equal(r *Slice) bool {
	return s.Name == r.Name && s.Service == r.Service && slices.Equal(s.Ports, r.Ports) &&
		slices.EqualFunc(s.Endpoints, r.Endpoints, Endpoint.equal)
}

func (e Endpoint) equal(f Endpoint) bool {
	return e.Addr == f.Addr && e.Node == f.Node && e.Zone == f.Zone && e.Ready == f.Ready && e.Serving == f.Serving &&
		e.Terminating == f.Terminating && slices.Equal(e.ForNodes, f.ForNodes) && slices.Equal(e.ForZones, f.ForZones)
}
