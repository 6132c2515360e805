package directory

import (
	"fmt"
	"net/netip"
	"time"

	"varco.dev/internal/service"
)

// Service is what a proxy in user space needs to know of a Service.
type Service struct {
	Name         service.Name
	UID          string
	ExternalName bool             // it stands for a name of the DNS
	Families     []service.Family // spec.ipFamilies; the first is the primary one
	Ports        []ServicePort    // in the object's order
	Affinity     time.Duration    // for how long a client's address keeps its endpoint; 0: not at all
	Cookie       bool             // a client keeps its endpoint by a cookie (annotation varco.dev/affinity)
	ClusterIPs   []netip.Addr     // of default/kubernetes alone, see Directory.APIServers
	Backend      BackendTLS
}

// ServicePort is a port of a Service.
type ServicePort struct {
	Name        string // may be empty
	Number      uint16
	Protocol    service.Protocol
	AppProtocol string
}

// Slice is an EndpointSlice of a Service, with addresses of one family.
type Slice struct {
	Name, Service service.Name
	Family        service.Family
	Ports         []SlicePort
	Endpoints     []Endpoint
}

// SlicePort is a port of all endpoints of a Slice.
type SlicePort struct {
	Name        string // that of the Service's port
	Number      uint16
	Protocol    service.Protocol
	AppProtocol string
}

// Endpoint is an address behind a Service, with the conditions that Kubernetes gives it.
type Endpoint struct {
	Addr        netip.Addr
	Ready       bool
	Serving     bool
	Terminating bool
	Node        string       // name of the node it runs on, or ""
	Zone        string       // of that node, or ""
	ForZones    []string     // topology hints: zones that should use it
	Pod         service.Name // the pod that it says to be (targetRef); zero: none
}

// Pod is what a proxy needs to know of a Pod.
type Pod struct {
	Name       service.Name
	UID        string
	Addrs      []netip.Addr // status.podIPs; the first is the primary one
	Terminated bool         // phase Succeeded or Failed: its address may be another pod's by now
	Ports      []PodPort    // of its containers in their order, then of its sidecars (init containers that go on)
	Backend    BackendTLS
}

// PodPort is a port that a container declares.
type PodPort struct {
	Name     string // may be empty
	Number   uint16
	Protocol service.Protocol
	Sidecar  bool // of an init container that goes on
}

// Node is what a proxy needs to know of a Node.
type Node struct {
	Name        string
	Addrs       []NodeAddress // status.addresses, in their order
	KubeletPort uint16        // 0: not known
}

// NodeAddress is an address of a Node: an IP address or a name.
type NodeAddress struct {
	Type    string // InternalIP, Hostname, ... (v1.NodeAddressType)
	Address string
}

// BackendTLS says how the certificate of a target is verified, from annotations of its Service or Pod.
//
// Annotations that are not valid never make a target one that is not verified: CA is InvalidCA then, which is no PEM, so
// that whoever builds a pool of certificates from it fails. Callers look at Err before they connect, and answer with it.
type BackendTLS struct {
	CA         string // PEM, at least one certificate, or InvalidCA; empty: what is configured for all targets counts
	ServerName string // that the certificate must be for, a DNS name or an IP address; empty: the Service's name
}

// InvalidCA stands in BackendTLS.CA for an annotation that is not valid.
const InvalidCA = "invalid"

// Err returns why there can be no connection by TLS to a target: an annotation of its Service or Pod that is not valid.
// The object's name is not in it.
func (b BackendTLS) Err() error {
	if b.CA != InvalidCA {
		return nil
	}
	return fmt.Errorf("annotation %s or %s is not valid", AnnotationBackendCA, AnnotationBackendServerName)
}
