package inspect

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"varco.dev/internal/service"
)

// Explanation is what becomes of a new connection, and why. It travels as JSON.
type Explanation struct {
	To       string `json:"to"` // address:port/protocol
	From     string `json:"from,omitempty"`
	Client   string `json:"client"` // what the client is taken for
	Outcome  string `json:"outcome"`
	Why      string `json:"why"`
	Service  string `json:"service,omitempty"` // "namespace/name"; none: no Service has the address and port
	Port     string `json:"port,omitempty"`
	Kind     string `json:"kind,omitempty"` // of the address
	Policy   string `json:"policy,omitempty"`
	Topology string `json:"topology,omitempty"` // the topology hints that choose among the endpoints
	Affinity string `json:"affinity,omitempty"`
	Balance  string `json:"balance,omitempty"`

	Endpoints []Endpoint `json:"endpoints,omitempty"` // those in use, then the others
	Claims    []string   `json:"claims,omitempty"`    // Services that ask for the address too, and do not have it
}

// Endpoint is one endpoint of the Service. LeftOut is empty for one that new connections go to.
type Endpoint struct {
	Address string `json:"address"`
	Node    string `json:"node,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Slice   string `json:"slice,omitempty"`
	LeftOut string `json:"leftOut,omitempty"`
}

// Outcomes beside those of service.Outcome.
const passed = "pass"

// Explainer answers queries from a table and what it does not know.
type Explainer struct {
	Table  *service.Table
	Client service.Source // what the client of the query is
	// At tells whether NodePorts are served at an address.
	At func(netip.Addr) bool
	// LocalReject tells that connections are rejected where a policy leaves no endpoint.
	LocalReject bool
}

// Explain tells what becomes of the connection that a query is about.
func (e Explainer) Explain(q Query) Explanation {
	out := Explanation{To: q.To.String() + "/" + q.Protocol.String(), Client: client(e.Client)}
	if q.From.IsValid() {
		out.From = q.From.String()
	}
	x, ok := e.Table.Explain(service.Question{Protocol: q.Protocol, To: q.To, From: e.Client})
	elsewhere := ok && x.Frontend.Kind == service.NodePort && !e.At(q.To.Addr())
	if !ok || elsewhere {
		out.Outcome, out.Why = e.unclaimed(q.To.Addr())
		if elsewhere && out.Outcome == passed {
			out.Why = fmt.Sprintf("%s has the NodePort, but this node does not serve NodePorts at %s", x.Service, q.To.Addr())
		}
		return out
	}
	out.describe(x)
	out.Outcome, out.Why = e.outcome(x, q.From)
	return out
}

// unclaimed tells what becomes of connections to an address and port that no Service has.
func (e Explainer) unclaimed(to netip.Addr) (outcome, why string) {
	if owner, ok := e.Table.ClusterIP(to); ok {
		return string(service.Reject), fmt.Sprintf("%s is the ClusterIP of %s, which has no such port", to, owner)
	}
	for _, cidr := range e.Table.CIDRs() {
		if cidr.Contains(to) {
			return string(service.Drop), fmt.Sprintf("%s is of the ServiceCIDR %s, and no Service has it", to, cidr)
		}
	}
	return passed, "no Service has this address and port; the connection is left alone"
}

func (x *Explanation) describe(from service.Explanation) {
	x.Service, x.Port, x.Kind = from.Service.String(), from.Port, from.Frontend.Kind.String()
	x.Policy, x.Topology, x.Balance = from.Policy.String(), string(from.Topology), from.Balance.String()
	if from.Affinity > 0 {
		x.Affinity = from.Affinity.String()
	}
	for _, b := range from.Backends {
		x.Endpoints = append(x.Endpoints, Endpoint{Address: b.Addr.String(), Node: b.Node, Zone: b.Zone})
	}
	for _, l := range from.LeftOut {
		at := netip.AddrPortFrom(l.Addr, l.Port).String()
		x.Endpoints = append(x.Endpoints, Endpoint{Address: at, Node: l.Node, Zone: l.Zone, Slice: l.Slice.String(), LeftOut: string(l.Reason)})
	}
	for _, c := range from.Claims[1:] {
		x.Claims = append(x.Claims, fmt.Sprintf("%s as %s", c.Service, c.Kind))
	}
}

// outcome tells what becomes of the connection, and the one reason that decides.
func (e Explainer) outcome(x service.Explanation, from netip.Addr) (outcome, why string) {
	in := func(p netip.Prefix) bool { return p.Contains(from) }
	switch {
	case len(x.Sources) > 0 && from.IsValid() && !slices.ContainsFunc(x.Sources, in):
		return string(service.Drop), fmt.Sprintf("%s is in none of the Service's loadBalancerSourceRanges", from)
	case x.Outcome == service.Reject:
		return string(service.Reject), "the Service has no endpoint that is ready, nor one that ends and still serves"
	case x.Outcome == service.Drop && e.LocalReject:
		return string(service.Reject), "the policy is Local and no endpoint on this node is usable (--local-reject)"
	case x.Outcome == service.Drop:
		return string(service.Drop), "the policy is Local and no endpoint on this node is usable"
	case x.Shortcut:
		return string(service.Forward), "the policy is Local, but clients on this node reach all endpoints, as from outside through another node"
	case len(x.Sources) > 0 && !from.IsValid():
		return string(service.Forward), "a backend is usable; only clients in " + list(x.Sources, "") + " may connect"
	}
	return string(service.Forward), fmt.Sprintf("%d of %d endpoints are usable", len(x.Backends), len(x.Backends)+len(x.LeftOut))
}

func client(s service.Source) string {
	switch s {
	case service.SourcePod:
		return "a pod of this node"
	case service.SourceNode:
		return "this node"
	}
	return "another machine, or a pod of another node"
}

// WriteExplanation writes an explanation for people.
func WriteExplanation(w io.Writer, x Explanation) error {
	out := &strings.Builder{}
	from := x.From
	if from == "" {
		from = "a client"
	}
	fmt.Fprintf(out, "%s to %s: %s\n", from, x.To, verb(x.Outcome))
	fmt.Fprintf(out, "  because %s\n", x.Why)
	fmt.Fprintf(out, "  client: %s\n", x.Client)
	if x.Service != "" {
		fmt.Fprintf(out, "  Service: %s, port %s, by its %s\n", x.Service, orNone(x.Port), x.Kind)
		fmt.Fprintf(out, "  policy: %s; balance: %s; affinity: %s; topology hints: %s\n", x.Policy, x.Balance, orNone(x.Affinity), orNone(x.Topology))
	}
	for _, c := range x.Claims {
		fmt.Fprintf(out, "  also claimed by: %s\n", c)
	}
	if len(x.Endpoints) > 0 {
		fmt.Fprintln(out)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ENDPOINT\tNODE\tZONE\tUSED")
		for _, e := range x.Endpoints {
			used := "yes"
			if e.LeftOut != "" {
				used = "no: " + e.LeftOut
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", e.Address, orNone(e.Node), orNone(e.Zone), used)
		}
		table.Flush()
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func verb(outcome string) string {
	switch outcome {
	case string(service.Forward):
		return "sent to an endpoint"
	case string(service.Reject):
		return "rejected at once"
	case string(service.Drop):
		return "dropped without an answer"
	}
	return "not touched"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
