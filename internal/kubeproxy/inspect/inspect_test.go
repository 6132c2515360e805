package inspect_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubeproxy/inspect"
	"varco.dev/internal/service"
)

// source answers with what it was given.
type source struct {
	status inspect.Status
	err    error
	asked  inspect.Query
}

func (s *source) Status(context.Context) (inspect.Status, error) { return s.status, s.err }

func (s *source) Explain(_ context.Context, q inspect.Query) (inspect.Explanation, error) {
	s.asked = q
	return inspect.Explanation{}, s.err
}

// serve runs a server until the test ends, and waits until it answers.
func serve(t *testing.T, socket string, s inspect.Source) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	server := &inspect.Server{Socket: socket, Source: s, Log: slog.New(slog.DiscardHandler)}
	go func() { ended <- server.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v at the end of its context", err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // there is no event for a socket that begins to listen
	}
}

func TestAsked(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "run", "proxy.sock")
	s := &source{status: inspect.Status{Node: "node-1", Ready: true, Ports: []inspect.Port{{Service: "web", State: "done"}}}}
	stop := serve(t, socket, s)

	got, err := inspect.FetchStatus(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.status, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("status (-sent +received)\n%s", diff)
	}
	q, err := inspect.ParseQuery("[fd00::1]:53/UDP", "fd00::2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inspect.FetchExplanation(t.Context(), socket, q); err != nil || s.asked != q {
		t.Errorf("asked for %v, error %v; want %v", s.asked, err, q)
	}
	s.err = errors.New("no such thing")
	if _, err := inspect.FetchStatus(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("an error of the server came as %v", err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket has %v, %v; want it for its owner alone", info.Mode(), err)
	}
	stop()
	_, err = inspect.FetchStatus(t.Context(), socket)
	if err == nil || !strings.Contains(err.Error(), "no kube-proxy listens at "+socket) {
		t.Errorf("without a server: %v", err)
	}
}

// TestSocketInTheWay starts servers where something is at the socket's path.
func TestSocketInTheWay(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "proxy.sock")
	first := serve(t, socket, &source{status: inspect.Status{Node: "first"}})

	// One that answers is not pushed aside.
	ctx, cancel := context.WithCancel(t.Context())
	log := &bytes.Buffer{}
	warned := make(chan struct{}, 1)
	second := &inspect.Server{Socket: socket, Source: &source{status: inspect.Status{Node: "second"}},
		Log: slog.New(slog.NewTextHandler(notify{log, warned}, nil))}
	ended := make(chan error, 1)
	go func() { ended <- second.Run(ctx) }()
	<-warned
	if got, err := inspect.FetchStatus(t.Context(), socket); err != nil || got.Node != "first" {
		t.Errorf("got %q, %v; want the answer of the first", got.Node, err)
	}
	cancel()
	<-ended
	if !strings.Contains(log.String(), "another kube-proxy") {
		t.Errorf("log says %s", log)
	}
	first()

	// One that was left by a process that was killed is.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	third := serve(t, socket, &source{status: inspect.Status{Node: "third"}})
	if got, err := inspect.FetchStatus(t.Context(), socket); err != nil || got.Node != "third" {
		t.Errorf("got %q, %v; want the answer of the third", got.Node, err)
	}
	third()
}

// notify tells when something was written.
type notify struct {
	*bytes.Buffer
	told chan<- struct{}
}

func (n notify) Write(b []byte) (int, error) {
	defer func() {
		select {
		case n.told <- struct{}{}:
		default:
		}
	}()
	return n.Buffer.Write(b)
}

func TestParseQuery(t *testing.T) {
	for _, c := range []struct {
		target, from string
		want         inspect.Query
		err          string
	}{
		{"10.96.0.1:443", "", inspect.Query{To: netip.MustParseAddrPort("10.96.0.1:443"), Protocol: service.TCP}, ""},
		{"10.96.0.1:53/udp", "10.0.0.1", inspect.Query{To: netip.MustParseAddrPort("10.96.0.1:53"), Protocol: service.UDP, From: netip.MustParseAddr("10.0.0.1")}, ""},
		{"[::ffff:10.96.0.1]:1/SCTP", "", inspect.Query{To: netip.MustParseAddrPort("10.96.0.1:1"), Protocol: service.SCTP}, ""},
		{"10.96.0.1", "", inspect.Query{}, "not an address and port"},
		{"web:80", "", inspect.Query{}, "not an address and port"},
		{"10.96.0.1:80/icmp", "", inspect.Query{}, "not tcp, udp or sctp"},
		{"10.96.0.1:80", "pod-1", inspect.Query{}, "not an IP address"},
		{"10.96.0.1:80", "fd00::1", inspect.Query{}, "not of the same IP family"},
	} {
		got, err := inspect.ParseQuery(c.target, c.from)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s from %q: got %v, %v; want %v", c.target, c.from, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s from %q: got error %v, want one that says %q", c.target, c.from, err, c.err)
		}
	}
}

func TestWriteTable(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	web := service.Port{
		Key: service.Key{Service: service.Name{Namespace: "shop", Name: "web"}, Port: "http", Protocol: service.TCP, Family: service.IPv4},
		Frontends: []service.Frontend{
			{Kind: service.ClusterIP, Addr: netip.MustParseAddrPort("10.96.0.20:80")},
			{Kind: service.NodePort, Addr: netip.MustParseAddrPort("0.0.0.0:30080")},
		},
		Lost: []service.Loss{{
			Frontend: service.Frontend{Kind: service.ExternalIP, Addr: netip.MustParseAddrPort("192.0.2.1:80")},
			Winner:   service.Key{Service: service.Name{Namespace: "x", Name: "old"}},
		}},
		Cluster:  []service.Backend{{Addr: netip.MustParseAddrPort("10.244.1.2:8080"), Local: true}, {Addr: netip.MustParseAddrPort("10.244.2.2:8080")}},
		External: service.PolicyLocal, Local: []service.Backend{{Addr: netip.MustParseAddrPort("10.244.1.2:8080"), Local: true}},
	}
	done := inspect.Describe(&web)
	done.State, done.Since, done.Connections, done.Packets, done.Bytes = "done", ago(5*time.Minute), 12, 345, 6789012
	failed := inspect.Port{
		Namespace: "shop", Service: "db", Protocol: "udp", Family: "ipv6", State: "error", Since: ago(time.Second), Error: "no room",
		Bytes: 1_023_590, // 999.6 Ki
	}
	status := inspect.Status{
		Node: "node-1", Version: "v1", Ready: true, Counters: "all", LastSuccess: ago(time.Second), Problems: []string{"the status of the moon is not known"},
		NodePortAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, Ports: []inspect.Port{done, failed},
	}
	var got strings.Builder
	if err := inspect.WriteTable(&got, status, now); err != nil {
		t.Fatal(err)
	}
	want := `node node-1, v1, ready, last change 1s ago
problem: the status of the moon is not known
NodePorts at 192.0.2.7; ClusterIPs from no known network

SERVICE   PORT           FRONTENDS                                            BACKENDS    STATE  SINCE  CONNECTIONS  PACKETS  BYTES
shop/web  http/tcp/ipv4  10.96.0.20:80,:30080(local),[192.0.2.1:80 is x/old]  2, 1 local  done   5m     12           345      6.47Mi
shop/db   udp/ipv6                                                            0, 0 local  error  1s     0            0        0.976Mi
error of shop/db udp/ipv6: no room
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if only := status.Of("shop/db"); len(only.Ports) != 1 || len(status.Of("shop").Ports) != 2 || len(status.Of("x").Ports) != 0 {
		t.Errorf("Of chooses %v", only.Ports)
	}
}

func TestExplain(t *testing.T) {
	table := service.NewTable("node-1")
	name := func(n string) service.Name { return service.Name{Namespace: "shop", Name: n} }
	addr := netip.MustParseAddr
	table.SetService(&service.Service{
		Name: name("web"), ClusterIPs: []netip.Addr{addr("10.96.0.20")}, LoadBalancerIPs: []netip.Addr{addr("198.51.100.1")},
		External: service.PolicyLocal, Sources: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		Ports: []service.ServicePort{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}},
	})
	table.SetService(&service.Service{
		Name: name("empty"), ClusterIPs: []netip.Addr{addr("10.96.0.30")}, Ports: []service.ServicePort{{Protocol: service.TCP, Port: 80}},
	})
	table.SetSlice(&service.Slice{
		Name: name("web-1"), Service: name("web"), Ports: []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 8080}},
		Endpoints: []service.Endpoint{
			{Addr: addr("10.244.2.2"), Node: "node-2", Ready: true, Serving: true},
			{Addr: addr("10.244.1.2"), Node: "node-1"},
		},
	})
	table.SetCIDRs([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
	table.Changes()
	for _, c := range []struct {
		to, from string
		client   service.Source
		reject   bool
		outcome  string
		why      string
	}{
		{to: "10.96.0.20:80", outcome: "forward", why: "1 of 2 endpoints"},
		{to: "10.96.0.20:81", outcome: "reject", why: "ClusterIP of shop/web, which has no such port"},
		{to: "10.96.0.20:80/udp", outcome: "reject", why: "ClusterIP of shop/web, which has no such port"},
		{to: "10.96.0.30:80", outcome: "reject", why: "no endpoint that is ready"},
		{to: "10.96.9.9:80", outcome: "drop", why: "ServiceCIDR 10.96.0.0/16"},
		{to: "192.0.2.77:80", outcome: "pass", why: "no Service has"},
		{to: "192.0.2.7:30080", outcome: "drop", why: "no endpoint on this node"},
		{to: "192.0.2.7:30080", reject: true, outcome: "reject", why: "--local-reject"},
		{to: "192.0.2.8:30080", outcome: "pass", why: "does not serve NodePorts at 192.0.2.8"},
		{to: "10.96.0.30:30080", outcome: "reject", why: "ClusterIP of shop/empty, which has no such port"},
		{to: "10.96.9.9:30080", outcome: "drop", why: "ServiceCIDR 10.96.0.0/16"},
		{to: "198.51.100.1:80", from: "10.244.1.9", client: service.SourcePod, outcome: "drop", why: "loadBalancerSourceRanges"},
		{to: "198.51.100.1:80", from: "203.0.113.9", client: service.SourcePod, outcome: "forward", why: "clients on this node reach all"},
		{to: "198.51.100.1:80", from: "203.0.113.9", outcome: "drop", why: "no endpoint on this node"},
	} {
		q, err := inspect.ParseQuery(c.to, c.from)
		if err != nil {
			t.Fatal(err)
		}
		x := inspect.Explainer{Table: table, Client: c.client, LocalReject: c.reject, At: func(a netip.Addr) bool { return a == addr("192.0.2.7") }}.Explain(q)
		if x.Outcome != c.outcome || !strings.Contains(x.Why, c.why) {
			t.Errorf("%s from %q: %s because %s; want %s because %s", c.to, c.from, x.Outcome, x.Why, c.outcome, c.why)
		}
	}
}

func TestWriteExplanation(t *testing.T) {
	var got strings.Builder
	err := inspect.WriteExplanation(&got, inspect.Explanation{
		To: "10.96.0.20:80/tcp", From: "10.244.1.9", Client: "a pod of this node", Outcome: "forward", Why: "1 of 2 endpoints are usable",
		Service: "shop/web", Port: "http", Kind: "ClusterIP", Policy: "Cluster", Balance: "random", Affinity: "3h0m0s",
		Claims: []string{"x/late as ExternalIP"},
		Endpoints: []inspect.Endpoint{
			{Address: "10.244.2.2:8080", Node: "node-2", Zone: "a"},
			{Address: "10.244.1.2:8080", Node: "node-1", LeftOut: "not ready"},
		},
	})
	want := `10.244.1.9 to 10.96.0.20:80/tcp: sent to an endpoint
  because 1 of 2 endpoints are usable
  client: a pod of this node
  Service: shop/web, port http, by its ClusterIP
  policy: Cluster; balance: random; affinity: 3h0m0s; topology hints: none
  also claimed by: x/late as ExternalIP

ENDPOINT         NODE    ZONE  USED
10.244.2.2:8080  node-2  a     yes
10.244.1.2:8080  node-1  none  no: not ready
`
	if diff := cmp.Diff(want, got.String()); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}
