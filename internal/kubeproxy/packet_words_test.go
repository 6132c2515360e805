package kubeproxy_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"varco.dev/internal/nettest"
)

// A file of testdata/packets has the objects that are served, and tables of what is to happen to packets:
//
//	-- objects.yaml --
//	(as kubectl takes them)
//	-- packets --
//	pod-1c, client -> web ClusterIP, NodePort@node-2: pod-1a pod-2a as node-1
//	client -> empty/udp/v6 LoadBalancerIP: reject
//	client -> [fd00:96::99]:80/tcp: drop
//
// Each line names clients, a Service with the sorts of its addresses or an address, and what the clients see: the
// backends that answer and the host that these take the client for ("itself" is the client), a reject, or a drop. The
// Service may be narrowed to a protocol, a family, or the name of a port. NodePort@HOST is asked for at an address of
// that host.

// read returns the objects of a file.
func (s *stage) read(file string) []runtime.Object {
	s.t.Helper()
	return decode(s.t, s.section(file, "objects.yaml"))
}

func (s *stage) section(file, name string) []byte {
	s.t.Helper()
	text, err := os.ReadFile("testdata/packets/" + file)
	s.must(err)
	for _, f := range txtar.Parse(text).Files {
		if f.Name == name {
			return f.Data
		}
	}
	s.t.Fatalf("testdata/packets/%s has no section %s", file, name)
	return nil
}

// check sends packets as a table of a file says. The objects are those served last.
func (s *stage) check(file, table string) {
	s.t.Helper()
	nettest.RunTable(s.t, s.hosts, s.rows(string(s.section(file, table))))
}

// rows reads a table.
func (s *stage) rows(table string) (out []nettest.Row) {
	s.t.Helper()
	for line := range strings.Lines(table) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		clients, rest, ok := strings.Cut(line, " -> ")
		to, want, ok2 := strings.Cut(rest, ": ")
		if !ok || !ok2 {
			s.t.Fatalf("no row of a packet table: %s", line)
		}
		for from := range strings.SplitSeq(clients, ", ") {
			if s.hosts.Namespaces[from] == nil {
				s.t.Fatalf("no host: %s", line)
			}
			for _, r := range s.targets(to) {
				r.From, r.Want = from, verdict(want, from)
				out = append(out, r)
			}
		}
	}
	return out
}

// verdict reads what a client is to see.
func verdict(text, from string) nettest.Verdict {
	backends, source, ok := strings.Cut(strings.TrimSpace(text), " as ")
	switch {
	case backends == "reject":
		return nettest.Verdict{Reject: true}
	case backends == "drop":
		return nettest.Verdict{}
	case !ok:
		panic("no verdict: " + text)
	case source == "itself":
		source = from
	}
	return nettest.Verdict{Backends: slices.Sorted(strings.FieldsSeq(backends)), Source: source}
}

// targets reads where packets go to.
func (s *stage) targets(text string) (out []nettest.Row) {
	s.t.Helper()
	first, kinds, _ := strings.Cut(text, " ")
	words := strings.Split(first, "/")
	if to, err := netip.ParseAddrPort(words[0]); err == nil {
		return []nettest.Row{{To: to, Protocol: words[1]}}
	}
	svc := s.service(words[0])
	for kind := range strings.SplitSeq(kinds, ", ") {
		before := len(out)
		for _, p := range svc.Spec.Ports {
			for f, family := range []string{"v4", "v6"} {
				protocol := strings.ToLower(string(p.Protocol))
				if !narrow(words[1:], protocol, family, p.Name) {
					continue
				}
				if to, ok := s.address(svc, kind, p, f); ok {
					note := fmt.Sprintf("(%s %s)", svc.Name, kind)
					out = append(out, nettest.Row{To: to, Protocol: protocol, Note: note})
				}
			}
		}
		if len(out) == before {
			s.t.Fatalf("no address: %s of %s", kind, text)
		}
	}
	return out
}

// narrow tells whether all words are among those of a port.
func narrow(words []string, of ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(of, w) })
}

func (s *stage) service(name string) *corev1.Service {
	s.t.Helper()
	for _, o := range s.objects {
		if svc, ok := o.(*corev1.Service); ok && svc.Name == name {
			return svc
		}
	}
	s.t.Fatalf("no Service %s", name)
	return nil
}

// address returns the address of a port of a Service: of that sort and family (0 or 1), if it has one.
func (s *stage) address(svc *corev1.Service, kind string, p corev1.ServicePort, family int) (netip.AddrPort, bool) {
	var addrs []string
	port := uint16(p.Port)
	switch kind {
	case "ClusterIP":
		addrs = svc.Spec.ClusterIPs
	case "ExternalIP":
		addrs = svc.Spec.ExternalIPs
	case "LoadBalancerIP":
		for _, i := range svc.Status.LoadBalancer.Ingress {
			addrs = append(addrs, i.IP)
		}
	default:
		place, ok := strings.CutPrefix(kind, "NodePort@")
		if !ok || s.places[place] == nil {
			return netip.AddrPort{}, false
		}
		return netip.AddrPortFrom(s.places[place][family], uint16(p.NodePort)), p.NodePort != 0
	}
	for _, text := range addrs {
		a, err := netip.ParseAddr(text)
		if err == nil && a.Is6() == (family == 1) {
			return netip.AddrPortFrom(a, port), true
		}
	}
	return netip.AddrPort{}, false
}
