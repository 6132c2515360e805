package service_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/service"
)

// explained writes an Explanation in few lines: the frontend, then each endpoint.
func explained(x service.Explanation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", x.Service.Name, x.Frontend.Kind, x.Policy, x.Outcome)
	if x.Shortcut {
		b.WriteString(" shortcut")
	}
	if x.Topology != "" {
		fmt.Fprintf(&b, " %s", x.Topology)
	}
	for _, c := range x.Backends {
		fmt.Fprintf(&b, "\n%s %s", c.Addr, c.Node)
	}
	for _, l := range x.LeftOut {
		fmt.Fprintf(&b, "\n%s %s: %s", netip.AddrPortFrom(l.Addr, l.Port), l.Node, l.Reason)
	}
	return b.String()
}

func TestExplain(t *testing.T) {
	table := service.NewTable("node-1")
	table.SetNode(service.Node{Zone: "zone-a"})
	plain := svc("plain", 1, "10.0.0.1 192.0.2.1")
	plain.Weights = []service.Weight{{Node: "node-9", Weight: 0}}
	local := svc("local", 2, "10.0.0.2 192.0.2.1")
	local.External, local.Internal, local.Ports[0].NodePort = service.PolicyLocal, service.PolicyLocal, 30080
	for _, s := range []*service.Service{plain, local, svc("hinted", 1, "10.0.0.3"), svc("none", 1, "10.0.0.4")} {
		table.SetService(s)
	}
	table.SetSlice(slice("plain-1", "plain", "1.1.1.1@node-1 -1.1.1.2@node-2 ~1.1.1.3@node-3 !1.1.1.4@node-4 1.1.1.5@node-9"))
	table.SetSlice(slice("plain-2", "plain", "~1.1.1.1@node-2 fd00::1@node-1"))
	other := slice("plain-3", "plain", "1.1.1.6")
	other.Ports[0].Name = "other"
	table.SetSlice(other)
	table.SetSlice(slice("local-1", "local", "1.1.2.1@node-2"))
	table.SetSlice(slice("hinted-1", "hinted", "1.1.3.1@node-1>zone-b 1.1.3.2@node-2>zone-a"))

	for _, c := range []struct {
		name, to string
		from     service.Source
		want     string
	}{
		{"every reason to be left out", "10.0.0.1:80", "", `plain ClusterIP Cluster forward
1.1.1.1:8080 node-1
1.1.1.1:8080 node-2: listed again, and the other listing counts
1.1.1.2:8080 node-2: not ready
1.1.1.3:8080 node-3: terminating, and others are ready
1.1.1.4:8080 node-4: terminating and no longer serving
1.1.1.5:8080 node-9: has weight 0, and others have more
1.1.1.6:0 : its slice has no port of that name and protocol
[fd00::1]:8080 node-1: not of the IP family of the address`},
		{"none local, from elsewhere", "0.0.0.0:30080", service.SourceElse, `local NodePort Local drop
1.1.2.1:8080 node-2: not on this node, and the policy is Local`},
		{"none local, from a pod here", "198.51.100.1:30080", service.SourcePod, `local NodePort Local forward shortcut
1.1.2.1:8080 node-2`},
		{"none local, for internal clients there is no shortcut", "10.0.0.2:80", service.SourcePod, `local ClusterIP Local drop
1.1.2.1:8080 node-2: not on this node, and the policy is Local`},
		{"hints", "10.0.0.3:80", "", `hinted ClusterIP Cluster forward PreferSameZone
1.1.3.2:8080 node-2
1.1.3.1:8080 node-1: meant for other zones by its topology hints`},
		{"no endpoints", "10.0.0.4:80", "", "none ClusterIP Cluster reject"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, ok := table.Explain(service.Question{Protocol: service.TCP, To: netip.MustParseAddrPort(c.to), From: c.from})
			if diff := cmp.Diff(c.want, explained(x)); diff != "" || !ok {
				t.Errorf("ok %t (-want +got)\n%s", ok, diff)
			}
		})
	}
	if x, ok := table.Explain(service.Question{Protocol: service.UDP, To: netip.MustParseAddrPort("10.0.0.1:80")}); ok {
		t.Errorf("UDP is nobody's, got %+v", x)
	}
	x, _ := table.Explain(service.Question{Protocol: service.TCP, To: netip.MustParseAddrPort("192.0.2.1:80")})
	name := func(n string) service.Name { return service.Name{Namespace: "x", Name: n} }
	want := []service.Claim{
		{Service: name("plain"), Kind: service.ExternalIP, Created: time.Unix(1, 0).UTC()},
		{Service: name("local"), Kind: service.ExternalIP, Created: time.Unix(2, 0).UTC()},
	}
	if diff := cmp.Diff(want, x.Claims); diff != "" {
		t.Errorf("claims (-want +got)\n%s", diff)
	}
}

// TestExplanationInJSON looks at how an Explanation is written, which other programs read.
func TestExplanationInJSON(t *testing.T) {
	table := service.NewTable("node-1")
	s := svc("a", 1, "10.0.0.1 *192.0.2.1")
	s.External, s.Affinity, s.Balance, s.Sources = service.PolicyLocal, time.Minute, service.Maglev, prefixes("198.51.100.0/24")
	table.SetService(s)
	table.SetSlice(slice("a-1", "a", "1.1.1.1@node-1/zone-a -1.1.1.2"))
	x, _ := table.Explain(service.Question{Protocol: service.TCP, To: netip.MustParseAddrPort("192.0.2.1:80")})
	got, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "service": "x/a",
 "port": "",
 "protocol": "tcp",
 "family": "ipv4",
 "frontend": {
  "kind": "LoadBalancerIP",
  "addr": "192.0.2.1:80"
 },
 "outcome": "forward",
 "policy": "Local",
 "affinity": 60000000000,
 "balance": "maglev",
 "sources": [
  "198.51.100.0/24"
 ],
 "backends": [
  {
   "addr": "1.1.1.1:8080",
   "node": "node-1",
   "zone": "zone-a",
   "local": true,
   "weight": 1
  }
 ],
 "leftOut": [
  {
   "slice": "x/a-1",
   "addr": "1.1.1.2",
   "port": 8080,
   "reason": "not on this node, and the policy is Local"
  }
 ],
 "claims": [
  {
   "service": "x/a",
   "port": "",
   "kind": "LoadBalancerIP",
   "created": "1970-01-01T00:00:01Z"
  }
 ]
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
