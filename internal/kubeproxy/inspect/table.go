package inspect

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"varco.dev/internal/observe"
)

// counted writes the counters of a port, of those that count.
func counted(p Port, counters string) string {
	connections, packets, bytes := fmt.Sprint(p.Connections), fmt.Sprint(p.Packets), observe.Size(p.Bytes)
	if counters != "all" {
		packets, bytes = "-", "-"
	}
	if counters == "none" {
		connections = "-"
	}
	return connections + "\t" + packets + "\t" + bytes
}

// WriteTable writes a status for people, as of now: what concerns all, then a line for each port.
func WriteTable(w io.Writer, s Status, now time.Time) error {
	out := &strings.Builder{}
	fmt.Fprintf(out, "node %s, %s, %s\n", s.Node, s.Version, summary(s, now))
	for _, p := range s.Problems {
		fmt.Fprintf(out, "problem: %s\n", p)
	}
	fmt.Fprintf(out, "NodePorts at %s; ClusterIPs from %s\n\n", list(s.NodePortAddresses, "no address"), list(s.ServiceCIDRs, "no known network"))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tPORT\tFRONTENDS\tBACKENDS\tSTATE\tSINCE\tCONNECTIONS\tPACKETS\tBYTES")
	for _, p := range s.Ports {
		fmt.Fprintf(table, "%s/%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Namespace, p.Service, p.name(), p.at(), p.to(),
			p.State, since(p.Since, now), counted(p, s.Counters))
	}
	table.Flush()
	for _, p := range s.Ports {
		if p.Error != "" {
			fmt.Fprintf(out, "error of %s/%s %s: %s\n", p.Namespace, p.Service, p.name(), p.Error)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// summary says how things are as a whole.
func summary(s Status, now time.Time) string {
	switch {
	case s.Error != "":
		return fmt.Sprintf("cannot apply Services since %s: %s", since(s.PendingSince, now), s.Error)
	case !s.Ready:
		return "not ready: not all Services are applied yet"
	case s.PendingSince != nil:
		return "applying a change since " + since(s.PendingSince, now)
	}
	return fmt.Sprintf("ready, last change %s ago", since(s.LastSuccess, now))
}

func (p Port) name() string {
	name := p.Protocol + "/" + p.Family
	if p.Port != "" {
		name = p.Port + "/" + name
	}
	return name
}

// at lists the frontends; those that another Service has are in brackets.
func (p Port) at() string {
	var all []string
	for _, f := range p.Frontends {
		text := f.Address
		if f.Policy == "Local" {
			text += "(local)"
		}
		if f.HeldBy != "" {
			text = "[" + f.Address + " is " + f.HeldBy + "]"
		}
		all = append(all, text)
	}
	return strings.Join(all, ",")
}

// to counts the backends: of all endpoints, and of those on this node.
func (p Port) to() string {
	all, local := len(p.Cluster), 0
	for _, b := range p.Cluster {
		if b.Local {
			local++
		}
	}
	return fmt.Sprintf("%d, %d local", all, max(local, len(p.Local)))
}

func since(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(now.Sub(*t))
}

func list[T fmt.Stringer](values []T, none string) string {
	if len(values) == 0 {
		return none
	}
	var all []string
	for _, v := range values {
		all = append(all, v.String())
	}
	return strings.Join(all, ", ")
}
