package service

import (
	"net/netip"
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
	Node        string // name of the node it runs on, or ""
	Ready       bool
	Serving     bool
	Terminating bool
}
