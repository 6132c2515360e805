package inspect

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"varco.dev/internal/service"
)

// Status is what a running kube-proxy says of itself. It travels as JSON.
type Status struct {
	Node              string         `json:"node"`
	Version           string         `json:"version"`
	Ready             bool           `json:"ready"`                 // all Services were applied once
	LastSuccess       *time.Time     `json:"lastSuccess,omitempty"` // of applying anything
	PendingSince      *time.Time     `json:"pendingSince,omitempty"`
	Error             string         `json:"error,omitempty"`    // of the last attempt to apply
	Counters          string         `json:"counters"`           // what is counted of each port: none, connections or all
	Problems          []string       `json:"problems,omitempty"` // what else is wrong, one sentence each
	NodePortAddresses []netip.Addr   `json:"nodePortAddresses"`
	ServiceCIDRs      []netip.Prefix `json:"serviceCIDRs"`
	Ports             []Port         `json:"ports"` // sorted
}

// Port is one port of a Service in one IP family.
type Port struct {
	Namespace string     `json:"namespace"`
	Service   string     `json:"service"`
	Port      string     `json:"port,omitempty"` // its name; a Service's only port may have none
	Protocol  string     `json:"protocol"`       // tcp, udp or sctp
	Family    string     `json:"family"`         // ipv4 or ipv6
	Frontends []Frontend `json:"frontends"`

	// Cluster and Local are the endpoints that take new connections under the policy of that name.
	Cluster  []Backend `json:"cluster,omitempty"`
	Local    []Backend `json:"local,omitempty"`
	Affinity string    `json:"affinity,omitempty"` // how long a client keeps its backend, such as "3h0m0s"
	Balance  string    `json:"balance"`
	Sources  []string  `json:"sources,omitempty"` // networks that may reach load-balancer IPs; none: all may

	State string     `json:"state"` // pending, done or error
	Since *time.Time `json:"since,omitempty"`
	Error string     `json:"error,omitempty"`

	Connections uint64 `json:"connections"`
	Packets     uint64 `json:"packets"`
	Bytes       uint64 `json:"bytes"`
}

// Frontend is an address at which a port is reached. HeldBy names the Service that has it instead, if one does.
type Frontend struct {
	Kind    string `json:"kind"`
	Address string `json:"address"` // address and port; of a NodePort the port alone, as ":30080"
	Policy  string `json:"policy"`
	HeldBy  string `json:"heldBy,omitempty"`
}

// Backend is an endpoint.
type Backend struct {
	Address string `json:"address"`
	Local   bool   `json:"local,omitempty"` // on this node
	Weight  int    `json:"weight,omitempty"`
}

// Describe writes a port down; state and counters are the caller's to add.
func Describe(p *service.Port) Port {
	out := Port{
		Namespace: p.Key.Service.Namespace, Service: p.Key.Service.Name, Port: p.Key.Port,
		Protocol: p.Key.Protocol.String(), Family: p.Key.Family.String(),
		Cluster: backends(p.Cluster), Local: backends(p.Local), Balance: p.Balance.String(),
	}
	if p.Affinity > 0 {
		out.Affinity = p.Affinity.String()
	}
	for _, s := range p.Sources {
		out.Sources = append(out.Sources, s.String())
	}
	for _, f := range p.Frontends {
		out.Frontends = append(out.Frontends, frontend(p, f, ""))
	}
	for _, l := range p.Lost {
		out.Frontends = append(out.Frontends, frontend(p, l.Frontend, l.Winner.Service.String()))
	}
	return out
}

func frontend(p *service.Port, f service.Frontend, heldBy string) Frontend {
	out := Frontend{Kind: f.Kind.String(), Address: f.Addr.String(), Policy: p.PolicyOf(f.Kind).String(), HeldBy: heldBy}
	if f.Kind == service.NodePort {
		out.Address = portOnly(f.Addr)
	}
	return out
}

func backends(list []service.Backend) (out []Backend) {
	for _, b := range list {
		out = append(out, Backend{Address: b.Addr.String(), Local: b.Local, Weight: int(b.Weight)})
	}
	return out
}

// Of returns the status with the ports of a namespace, or of a Service given as "namespace/name", alone.
func (s Status) Of(name string) Status {
	namespace, service, one := strings.Cut(name, "/")
	s.Ports = slices.DeleteFunc(slices.Clone(s.Ports), func(p Port) bool {
		return p.Namespace != namespace || one && p.Service != service
	})
	return s
}
