package demo

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"varco.dev/lab/internal/load"
)

// Sources of requests.
const (
	fromPod    = "pod"
	fromNode   = "node"
	fromClient = "client"
	fromItself = "own pod" // a pod of the Service that it asks
)

// noEndpoints is the kind of an address whose Service has no endpoints.
const noEndpoints = "no endpoints"

// check is one row of the table: requests from one place to one address by one protocol.
type check struct {
	from     string
	kind     string // of the address, such as ClusterIP
	to       netip.AddrPort
	protocol string // as in a load.Config's URL
	// refused means that no request may succeed, and all must be refused at once.
	refused bool
}

func (c check) url() string { return c.protocol + "://" + c.to.String() }

// services are the demo's Services as the API server has them, and a node's addresses.
type services struct {
	echo, nodePort, lb, external, empty *corev1.Service

	node []netip.Addr
}

// plan lists the checks: which address is asked from where, for both families.
func (s services) plan() []check {
	cluster, empty := addrs(s.echo.Spec.ClusterIPs), addrs(s.empty.Spec.ClusterIPs)
	external := addrs(s.external.Spec.ExternalIPs)
	web, udp := nodePort(s.nodePort, "http"), nodePort(s.nodePort, "udp")
	var checks []check
	for _, row := range []struct {
		kind, protocol string
		addrs          []netip.Addr
		port           uint16
		from           []string
	}{
		{"ClusterIP", "http", cluster, 80, []string{fromPod, fromNode, fromItself}},
		{"ClusterIP", "tcp", cluster, 7000, []string{fromPod, fromNode}},
		{"ClusterIP", "udp", cluster, 7000, []string{fromPod, fromNode}},
		{"ClusterIP", "sctp", cluster, 7001, []string{fromPod, fromNode}},
		{"NodePort", "http", s.node, web, []string{fromPod, fromNode, fromClient}},
		{"NodePort", "udp", s.node, udp, []string{fromClient}},
		{"load balancer", "http", ingress(s.lb), 80, []string{fromPod, fromNode, fromClient}},
		{"external IP", "http", external, 80, []string{fromPod, fromClient}},
		{noEndpoints, "http", empty, 80, []string{fromPod, fromNode}},
	} {
		for _, from := range row.from {
			for _, a := range row.addrs {
				checks = append(checks, check{
					from: from, kind: row.kind, protocol: row.protocol, to: netip.AddrPortFrom(a, row.port),
					refused: row.kind == noEndpoints,
				})
			}
		}
	}
	return checks
}

// flows are the checks that go on while pods come and go: each source, each family.
func (s services) flows() []check {
	var flows []check
	for _, c := range s.plan() {
		inside := c.kind == "ClusterIP" && (c.from == fromPod || c.from == fromNode)
		outside := c.kind == "load balancer" && c.from == fromClient
		if c.protocol == "http" && (inside || outside) {
			flows = append(flows, c)
		}
	}
	return flows
}

func addrs(texts []string) []netip.Addr {
	var as []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			as = append(as, a)
		}
	}
	return as
}

func ingress(s *corev1.Service) []netip.Addr {
	var texts []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		texts = append(texts, i.IP)
	}
	return addrs(texts)
}

func nodePort(s *corev1.Service, name string) uint16 {
	for _, p := range s.Spec.Ports {
		if p.Name == name {
			return uint16(p.NodePort)
		}
	}
	return 0
}

// sources are the places to send from, by name.
type sources map[string]load.DialFunc

// servedRequests is how many requests each row of the table stands for. The chance that one of three pods has none of them
// is one in ten thousand million.
const servedRequests = 60

// run sends the requests of a check.
func (s sources) run(ctx context.Context, c check) (*load.Report, error) {
	return load.Run(ctx, load.Config{
		URL: c.url(), Dial: s[c.from], Requests: servedRequests, Concurrency: 4, Timeout: 2 * time.Second,
	})
}

// awaitTimeout is how long an address may take to answer by all pods. A Service that was just made, and a pod that just
// became ready, are known to each node a moment later.
const awaitTimeout = 20 * time.Second

// await asks until each of the pods has answered, or the refusal that must come has, and tells whether it came to that.
func (s sources) await(ctx context.Context, c check, pods int) (bool, error) {
	cfg := load.Config{URL: c.url(), Dial: s[c.from], Requests: 1, Timeout: 2 * time.Second}
	seen := load.NewReport()
	for end := time.Now().Add(awaitTimeout); time.Now().Before(end); {
		r, err := load.Run(ctx, cfg)
		if err != nil {
			return false, err
		}
		seen.Add(r)
		fine := r.Requests == 1 && unexpected(c, r) == 0
		if fine && (c.refused || len(seen.ByPod) == pods) {
			return true, nil
		}
		wait := 10 * time.Millisecond
		if !fine {
			wait = 100 * time.Millisecond
		}
		if err := pause(ctx, wait); err != nil {
			return false, err
		}
	}
	return false, nil
}

// unexpected is how many requests ended otherwise than they must.
func unexpected(c check, r *load.Report) int {
	if !c.refused {
		return r.Failed
	}
	wrong := r.Requests
	for text, n := range r.Errors {
		if strings.HasSuffix(text, "connection refused") {
			wrong -= n
		}
	}
	return wrong
}

// outcome is what came of a check.
type outcome struct {
	check
	report *load.Report
}

// problem says what is wrong with an outcome, "" if nothing. The requests must have reached all the pods.
func (o outcome) problem(pods int) string {
	if n := unexpected(o.check, o.report); n > 0 {
		if o.refused && o.report.Failed < o.report.Requests {
			return fmt.Sprintf("%d were answered, by pods %v", o.report.Requests-o.report.Failed,
				slices.Sorted(maps.Keys(o.report.ByPod)))
		}
		return strings.Join(o.report.Failures(), "; ")
	}
	if got := len(o.report.ByPod); !o.refused && got != pods {
		return fmt.Sprintf("only %d of %d pods answered", got, pods)
	}
	return ""
}
