package origin

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Origin is one port of one Service or pod, as a host name says it.
type Origin struct {
	Pod       bool   // a pod, not a Service
	Port      string // number or name; "": the only port there is
	Name      string // of the Service or pod; pods may have dots in their names
	Namespace string
	Label     string // of the cluster, as cluster.Context has it; "": the current context
}

// The last label of every origin, and the labels that say what is named before them. A cluster whose label is one of
// the latter cannot be told from a namespace of that name, and loses.
const (
	suffix      = "localhost"
	serviceKind = "svc"
	podKind     = "pod"
)

// maxHost is the longest host name (RFC 1035, section 2.3.4, as text without the root's dot).
const maxHost = 253

// Parse reads a Host header: [<port>.]<service>.<namespace>.svc[.<cluster label>].localhost and
// <port>.<pod>.<namespace>.pod[.<cluster label>].localhost, in any case, with or without a trailing dot and :port.
// A pod's name may have dots, so its port is what stands first and its namespace what stands last; only
// <pod>.<namespace>.pod.localhost leaves the port out. The Origin is in lower case.
//
// ok says that the host is one of ours; err, that it is ours but names nothing that can exist.
func Parse(host string) (o Origin, ok bool, err error) {
	labels, kind := split(host)
	if kind < 0 {
		return Origin{}, false, nil
	}
	o = Origin{Pod: labels[kind] == podKind}
	if kind == len(labels)-3 {
		o.Label = labels[kind+1]
	}
	if err := o.fill(labels[:kind]); err != nil {
		return Origin{}, true, fmt.Errorf("reading host %q: %w", host, err)
	}
	if err := o.check(len(strings.Join(labels, "."))); err != nil {
		return Origin{}, true, fmt.Errorf("reading host %q: %w", host, err)
	}
	return o, true, nil
}

// split returns the labels of a host, and which of them says svc or pod; -1 if the host is not ours.
func split(host string) (labels []string, kind int) {
	host = strings.ToLower(strings.TrimSuffix(withoutPort(host), "."))
	if !strings.HasSuffix(host, "."+suffix) {
		return nil, -1
	}
	labels = strings.Split(host, ".")
	for _, at := range []int{len(labels) - 2, len(labels) - 3} {
		if at >= 0 && (labels[at] == serviceKind || labels[at] == podKind) {
			return labels, at
		}
	}
	return nil, -1
}

// withoutPort cuts :port off. A host of ours has no other colon, and a literal IPv6 address does not end in localhost.
func withoutPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		return host[:i]
	}
	return host
}

// fill takes over what stands before svc or pod.
func (o *Origin) fill(names []string) error {
	n := len(names)
	switch {
	case n < 2:
		return fmt.Errorf("it wants <port>.<name>.<namespace> before .%s", o.kind())
	case n > 3 && !o.Pod:
		return fmt.Errorf("a Service has no dots in its name: it wants <port>.<service>.<namespace> before .%s", o.kind())
	}
	o.Namespace = names[n-1]
	if n == 2 {
		o.Name = names[0]
		return nil
	}
	if o.Port, o.Name = names[0], strings.Join(names[1:n-1], "."); o.Port == "" {
		return errors.New("it starts with a dot")
	}
	return nil
}

func (o *Origin) kind() string {
	if o.Pod {
		return podKind
	}
	return serviceKind
}

// check holds each part to the API server's rule for it, so that none can change the meaning of a path.
func (o *Origin) check(length int) error {
	name := validation.IsDNS1123Label
	if o.Pod {
		name = validation.IsDNS1123Subdomain
	}
	switch {
	case length > maxHost:
		return fmt.Errorf("it is longer than %d characters", maxHost)
	case name(o.Name) != nil:
		return fmt.Errorf("%q cannot be the name of a %s", o.Name, o.noun())
	case validation.IsDNS1123Label(o.Namespace) != nil:
		return fmt.Errorf("%q cannot be a namespace", o.Namespace)
	case o.Label != "" && validation.IsDNS1123Label(o.Label) != nil:
		return fmt.Errorf("%q cannot be a cluster's label", o.Label)
	}
	return checkPort(o.Port)
}

func (o *Origin) noun() string {
	if o.Pod {
		return "pod"
	}
	return "Service"
}

// checkPort takes a number from 1 to 65535 without leading zeros, a name, or nothing.
func checkPort(port string) error {
	if port == "" {
		return nil
	}
	if strings.Trim(port, "0123456789") != "" {
		if validation.IsDNS1123Label(port) != nil {
			return fmt.Errorf("%q cannot be the name of a port", port)
		}
		return nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return fmt.Errorf("%q is not a port from 1 to 65535", port)
	}
	return nil
}

// Host is the host name of the origin, without the port on which this computer serves it; Parse reads it back.
func (o Origin) Host() string {
	labels := make([]string, 0, 6)
	if o.Port != "" {
		labels = append(labels, o.Port)
	}
	labels = append(labels, o.Name, o.Namespace, o.kind())
	if o.Label != "" {
		labels = append(labels, o.Label)
	}
	return strings.Join(append(labels, suffix), ".")
}

// String names the origin for people.
func (o Origin) String() string {
	s := fmt.Sprintf("%s %s/%s", o.noun(), o.Namespace, o.Name)
	if o.Port != "" {
		s += " port " + o.Port
	}
	return s
}
