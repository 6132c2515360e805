package kubeproxy_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/kubernetes/fake"

	"varco.dev/internal/kubeproxy"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// loop is a node whose NodePorts are served at [::1]. Its backends are echo servers on the node itself, "a" and "b".
type loop struct {
	t    *testing.T
	ns   *nettest.Namespace
	of   *kubeproxy.Localhost
	log  *logBook
	end  func()
	open chan int // how many NodePorts are served, the newest
}

var (
	atA    = service.Backend{Addr: netip.MustParseAddrPort("[fd00::11]:8081"), Weight: 1}
	atB    = service.Backend{Addr: netip.MustParseAddrPort("[fd00::11]:8082"), Weight: 1}
	nobody = service.Backend{Addr: netip.MustParseAddrPort("[fd00::11]:8089"), Weight: 1} // refuses

	withLocalhost = []netip.Addr{netip.IPv6Loopback(), netip.MustParseAddr("fd00::11")}
)

func newLoop(t *testing.T) *loop {
	t.Helper()
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	l := &loop{t: t, ns: ns, log: newLogBook(), open: make(chan int, 1)}
	l.must(err)
	t.Cleanup(func() { ns.Close() })
	l.must(ns.AddAddr("lo", netip.PrefixFrom(atA.Addr.Addr(), 128)))
	for name, at := range map[string]service.Backend{"a": atA, "b": atB} {
		echo, err := nettest.StartEcho(ns, name, at.Addr.Port())
		l.must(err)
		t.Cleanup(func() { echo.Close() })
	}
	l.of = kubeproxy.NewLocalhost(kubeproxy.LocalhostConfig{Network: ns, Count: l.count, Log: slog.New(slog.NewTextHandler(l.log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.of.Run(ctx) }()
	l.end = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	t.Cleanup(func() { l.end() })
	return l
}

// count remembers the newest number. Only Run calls it.
func (l *loop) count(n int) {
	select {
	case <-l.open:
	default:
	}
	l.open <- n
}

func (l *loop) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// loopPort is a Service port of IPv6 with a NodePort.
func loopPort(name string, protocol service.Protocol, nodePort uint16, backends ...service.Backend) *service.Port {
	return &service.Port{
		Key:       service.Key{Service: service.Name{Namespace: "ns", Name: name}, Protocol: protocol, Family: service.IPv6},
		Frontends: []service.Frontend{{Kind: service.NodePort, Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), nodePort)}},
		Cluster:   backends, Serving: backends, HasEndpoints: len(backends) > 0,
	}
}

// apply replaces what is served at once.
func (l *loop) apply(ports ...*service.Port) { l.tell(true, withLocalhost, ports...) }

func (l *loop) tell(full bool, addrs []netip.Addr, ports ...*service.Port) {
	c := service.Changes{NodeAddrs: addrs}
	for _, p := range ports {
		c.Ports = append(c.Ports, service.Change{New: p})
	}
	l.of.Applied(c, full)
}

// ask opens a connection, and returns who answers; "refused" is nobody.
func (l *loop) ask(protocol string, nodePort uint16) string {
	l.t.Helper()
	c := nettest.Client{Host: l.ns, Protocol: protocol, Patience: time.Second}
	a, err := c.Ask(l.t.Context(), netip.AddrPortFrom(netip.IPv6Loopback(), nodePort))
	switch {
	case errors.Is(err, nettest.ErrRefused):
		return "refused"
	case err != nil:
		return err.Error()
	}
	return a.Server
}

// want asks until the answer is right. Changes are taken in within milliseconds.
func (l *loop) want(protocol string, nodePort uint16, want string) {
	l.t.Helper()
	eventually(l.t, 2*time.Second, func() string {
		if got := l.ask(protocol, nodePort); got != want {
			return protocol + ": " + got + ", not " + want
		}
		return ""
	})
}

func TestLocalhostServes(t *testing.T) {
	l := newLoop(t)
	began := time.Now()
	l.apply(loopPort("web", service.TCP, 30001, atA), loopPort("dns", service.UDP, 30001, atB), loopPort("other", service.TCP, 30002, atB))
	l.want("tcp", 30001, "a")
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %s", took)
	} else {
		t.Logf("the first answer after %s", took)
	}
	l.want("udp", 30001, "b")
	l.want("tcp", 30002, "b")
}

// TestLocalhostFollows has NodePorts come, change and go.
func TestLocalhostFollows(t *testing.T) {
	l := newLoop(t)
	v4, sctp, inside := loopPort("v4", service.TCP, 30002, atA), loopPort("sctp", service.SCTP, 30002, atA), loopPort("inside", service.TCP, 30002, atA)
	v4.Key.Family = service.IPv4
	inside.Frontends[0].Kind = service.ClusterIP
	web := func(nodePort uint16, bs ...service.Backend) *service.Port {
		return loopPort("web", service.TCP, nodePort, bs...)
	}
	for _, step := range []struct {
		name  string
		full  bool
		addrs []netip.Addr
		ports []*service.Port
		gone  *service.Port
		first string // who answers at 30001
		other string // who answers at 30002
	}{
		{"others alone", true, withLocalhost, []*service.Port{v4, sctp, inside}, nil, "refused", "refused"},
		{"one", false, withLocalhost, []*service.Port{web(30001, atA)}, nil, "a", "refused"},
		{"localhost is not wanted", false, withLocalhost[1:], nil, nil, "refused", "refused"},
		{"it is again", false, withLocalhost, nil, nil, "a", "refused"},
		{"another backend", false, withLocalhost, []*service.Port{web(30001, atB)}, nil, "b", "refused"},
		{"moved", false, withLocalhost, []*service.Port{web(30002, atB)}, nil, "refused", "b"},
		{"moved back", false, withLocalhost, []*service.Port{web(30001, atB)}, nil, "b", "refused"},
		{"no backend", false, withLocalhost, []*service.Port{web(30001)}, nil, "refused", "refused"},
		{"another number", false, withLocalhost, []*service.Port{web(30002, atB)}, nil, "refused", "b"},
		{"another Service's", false, withLocalhost, []*service.Port{loopPort("api", service.TCP, 30002, atA)}, web(30002, atB), "refused", "a"},
		{"anew", true, withLocalhost, []*service.Port{web(30001, atA)}, nil, "a", "refused"},
		{"anew, and it is gone", true, withLocalhost, nil, nil, "refused", "refused"},
		{"one again", false, withLocalhost, []*service.Port{web(30001, atA)}, nil, "a", "refused"},
		{"removed", false, withLocalhost, nil, web(30001, atA), "refused", "refused"},
	} {
		c := service.Changes{NodeAddrs: step.addrs}
		for _, p := range step.ports {
			c.Ports = append(c.Ports, service.Change{New: p})
		}
		if step.gone != nil {
			c.Ports = append(c.Ports, service.Change{Old: step.gone})
		}
		l.of.Applied(c, step.full)
		t.Log(step.name)
		l.want("tcp", 30001, step.first)
		l.want("tcp", 30002, step.other)
		l.want("udp", 30002, "refused")
	}
	if n := <-l.open; n != 0 {
		t.Errorf("%d NodePorts are served at the end", n)
	}
}

// TestLocalhostTriesOthers has one backend of two refuse: no client sees it.
func TestLocalhostTriesOthers(t *testing.T) {
	l := newLoop(t)
	l.apply(loopPort("web", service.TCP, 30001, atA, nobody))
	l.want("tcp", 30001, "a")
	for range 32 {
		if got := l.ask("tcp", 30001); got != "a" {
			t.Fatal(got)
		}
	}
}

// TestLocalhostRetries has another program on a NodePort.
func TestLocalhostRetries(t *testing.T) {
	l := newLoop(t)
	const reason = "cannot serve a NodePort at localhost"
	thief, err := l.ns.Listen("tcp6", "[::1]:30001")
	l.must(err)
	defer thief.Close()
	l.apply(loopPort("web", service.TCP, 30001, atA), loopPort("other", service.TCP, 30002, atB))
	l.want("tcp", 30002, "b")
	l.apply(loopPort("web", service.TCP, 30001, atA), loopPort("other", service.TCP, 30002, atA)) // and so another attempt
	l.want("tcp", 30002, "a")
	eventually(t, time.Second, func() string {
		if text, _ := l.log.all(); strings.Count(text, reason) != 1 {
			return "the log does not say once that a NodePort is taken:\n" + text
		}
		return ""
	})
	thief.Close()
	eventually(t, 5*time.Second, func() string {
		if got := l.ask("tcp", 30001); got != "a" {
			return got
		}
		return ""
	})
}

// talker starts a TCP server that echoes what it hears.
func (l *loop) talker(port uint16) service.Backend {
	l.t.Helper()
	at := netip.AddrPortFrom(atA.Addr.Addr(), port)
	s, err := l.ns.Listen("tcp6", at.String())
	l.must(err)
	l.t.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return service.Backend{Addr: at, Weight: 1}
}

// TestLocalhostConnectionsGoOn while their backend, their Service, and localhost itself go. They end with the proxy.
func TestLocalhostConnectionsGoOn(t *testing.T) {
	l := newLoop(t)
	l.apply(loopPort("web", service.TCP, 30001, l.talker(9000)))
	var client net.Conn
	eventually(t, time.Second, func() string {
		var err error
		if client, err = l.ns.DialContext(t.Context(), "tcp6", "[::1]:30001"); err != nil {
			return err.Error()
		}
		return ""
	})
	defer client.Close()
	client.SetDeadline(time.Now().Add(10 * time.Second))
	say := func(when string) {
		t.Helper()
		io.WriteString(client, when)
		got := make([]byte, len(when))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != when {
			t.Fatalf("%s: got %q, %v", when, got, err)
		}
	}
	say("at first")
	l.apply(loopPort("web", service.TCP, 30001, atA))
	l.want("tcp", 30001, "a")
	say("without its backend")
	l.apply()
	l.want("tcp", 30001, "refused")
	say("without its Service")
	l.end()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("at the end: got %v, want a reset", err)
	}
}

// TestLocalhostDatagramsMove to another backend when theirs serves no more, and not before.
func TestLocalhostDatagramsMove(t *testing.T) {
	l := newLoop(t)
	l.apply(loopPort("dns", service.UDP, 30001, atA))
	l.want("udp", 30001, "a")
	client, err := l.ns.DialContext(t.Context(), "udp6", "[::1]:30001")
	l.must(err)
	defer client.Close()
	client.SetDeadline(time.Now().Add(10 * time.Second))
	ask := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		client.Write([]byte("hello"))
		if n, err := client.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), want+" ") {
			t.Errorf("got %q and %v, want %s", buf[:n], err, want)
		}
	}
	ask("a")
	draining := loopPort("dns", service.UDP, 30001, atB)
	draining.Serving = []service.Backend{atA, atB}
	l.apply(draining)
	l.want("udp", 30001, "b")
	ask("a")
	l.apply(loopPort("dns", service.UDP, 30001, atB))
	ask("b")
}

// TestProxyServesLocalhost wants the parts to be joined, from the API to an answer.
func TestProxyServesLocalhost(t *testing.T) {
	l := newLoop(t)
	svc := serviceAt("web", "fd00:96::1")
	svc.Spec.Type, svc.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30001
	endpoints := sliceOf("web", 8081, "fd00::11")
	endpoints.AddressType = discoveryv1.AddressTypeIPv6
	metrics := freePort(t)
	c := proxyConfig(t, fake.NewClientset(svc, endpoints, soleNode()), &nfttest.Kernel{}, "--nodeport-addresses=::1/128",
		"--healthz-bind-address=", "--metrics-bind-address="+metrics)
	c.Localhost = l.ns
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- kubeproxy.New(c).Run(ctx) }()
	l.want("tcp", 30001, "a")
	const gauge = `kubeproxy_nftables_localhost_nodeport_listeners{ip_family="IPv6"} 1`
	if text := await(t, "http://"+metrics+"/metrics", 200); !strings.Contains(text, gauge) {
		t.Errorf("metrics lack %s", gauge)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	l.want("tcp", 30001, "refused")
}

// serveLocalhost has the nodes of a stage serve NodePorts at [::1] too, as they are now, if that is among their addresses.
func (s *stage) serveLocalhost() {
	s.t.Helper()
	for _, n := range s.nodes {
		open := make(chan int, 1)
		l := kubeproxy.NewLocalhost(kubeproxy.LocalhostConfig{
			Network: n.ns, Count: func(n int) { open <- n }, Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
		})
		l.Applied(n.table.All(), true)
		ctx, cancel := context.WithCancel(s.t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		<-open
		s.t.Cleanup(func() {
			cancel()
			<-open
			s.must(<-ended)
		})
	}
}
