package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kernel"
	"varco.dev/internal/service"
)

// servicePort makes a port whose frontends are written as "10.96.0.1:53", or ":30053" for a NodePort of IPv4. Endpoints
// serve unless they begin with a minus.
func servicePort(name string, protocol service.Protocol, frontends []string, endpoints ...string) *service.Port {
	p := &service.Port{Key: service.Key{Service: service.Name{Namespace: "ns", Name: name}, Protocol: protocol, Family: service.IPv4}}
	for _, f := range frontends {
		if f[0] == ':' {
			p.Frontends = append(p.Frontends, service.Frontend{Kind: service.NodePort, Addr: netip.MustParseAddrPort("0.0.0.0" + f)})
			continue
		}
		p.Frontends = append(p.Frontends, service.Frontend{Kind: service.ClusterIP, Addr: netip.MustParseAddrPort(f)})
	}
	for _, s := range endpoints {
		addr, dead := strings.CutPrefix(s, "-")
		b := service.Backend{Addr: netip.MustParseAddrPort(addr)}
		p.Listed = append(p.Listed, b)
		if !dead {
			p.Serving = append(p.Serving, b)
		}
	}
	return p
}

// flowTo makes a flow from a client to a frontend, which an endpoint answers: the frontend itself if there is no translation.
func flowTo(protocol service.Protocol, dest, answers string, tcpState uint8) kernel.Flow {
	return kernel.Flow{
		Family: service.IPv4, Protocol: protocol, TCPState: tcpState,
		Source: netip.MustParseAddrPort("10.244.1.5:4000"), Dest: netip.MustParseAddrPort(dest),
		ReplySource: netip.MustParseAddrPort(answers), ReplyDest: netip.MustParseAddrPort("10.244.1.5:4000"),
		DestNAT: dest != answers,
	}
}

const (
	vip   = "10.96.0.1:53"
	one   = "10.244.0.1:53"
	two   = "10.244.0.2:53"
	other = "10.244.0.9:53"
)

func TestStale(t *testing.T) {
	udp := func(serving ...string) *service.Port {
		return servicePort("dns", service.UDP, []string{vip, ":30053"}, serving...)
	}
	tcp := func(serving ...string) *service.Port {
		return servicePort("web", service.TCP, []string{vip, ":30053"}, serving...)
	}
	node := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	serviceNet := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	sctp := func(endpoints ...string) *service.Port {
		return servicePort("s", service.SCTP, []string{vip, ":30053"}, endpoints...)
	}
	sctpFlow := func(dest, answers string, state uint8) kernel.Flow {
		f := flowTo(service.SCTP, dest, answers, 0)
		f.SCTPState = state
		return f
	}
	change := func(old, new *service.Port) []service.Change { return []service.Change{{Old: old, New: new}} }
	const syn, established, timeWait = kernel.TCPSynSent, kernel.TCPEstablished, 7
	const waiting, associated = kernel.SCTPCookieWait, kernel.SCTPEstablished
	type step struct {
		changes service.Changes
		full    bool
	}
	start := func(ports ...*service.Port) step {
		s := step{full: true, changes: service.Changes{NodeAddrs: node, OldCIDRs: serviceNet}}
		for _, p := range ports {
			s.changes.Ports = append(s.changes.Ports, service.Change{New: p})
		}
		return s
	}
	then := func(c []service.Change) step {
		return step{changes: service.Changes{Ports: c, OldNode: node, NodeAddrs: node, OldCIDRs: serviceNet}}
	}
	atAll := step{changes: service.Changes{NodeAddrs: []netip.Addr{netip.IPv4Unspecified()}}}

	for _, c := range []struct {
		name  string
		steps []step // only what the last one gives reason for is looked at
		drain bool
		flow  kernel.Flow
		want  bool
	}{
		// What is found at the start is judged as it is.
		{"udp to one that serves", []step{start(udp(one, two))}, false, flowTo(service.UDP, vip, two, 0), false},
		{"udp to one that is gone", []step{start(udp(one))}, false, flowTo(service.UDP, vip, two, 0), true},
		{"udp to a port without endpoints", []step{start(udp())}, false, flowTo(service.UDP, vip, two, 0), true},
		{"udp from before the Service", []step{start(udp(one))}, false, flowTo(service.UDP, vip, vip, 0), true},
		{"udp to somebody else", []step{start(udp(one))}, false, flowTo(service.UDP, "10.96.0.2:53", two, 0), false},
		{"tcp at the same address", []step{start(udp(one))}, false, flowTo(service.TCP, vip, two, syn), false},
		{"udp to a NodePort", []step{start(udp(one))}, false, flowTo(service.UDP, "192.0.2.1:30053", two, 0), true},
		{"udp to a NodePort without endpoints", []step{start(udp())}, false, flowTo(service.UDP, "192.0.2.1:30053", two, 0), true},
		{"udp to that port of another machine", []step{start(udp(one))}, false, flowTo(service.UDP, "192.0.2.7:30053", "192.0.2.7:30053", 0), false},
		{"sctp to one that is gone", []step{start(servicePort("s", service.SCTP, []string{vip}, one))}, false, flowTo(service.SCTP, vip, two, 0), true},
		{"tcp from before the Service, unanswered", []step{start(tcp(one))}, false, flowTo(service.TCP, vip, vip, syn), true},
		{"tcp from before the Service, established", []step{start(tcp(one))}, false, flowTo(service.TCP, vip, vip, established), false},
		{"tcp from before the Service, established, drain", []step{start(tcp(one))}, true, flowTo(service.TCP, vip, vip, established), false},
		{"tcp to one that is gone, unanswered", []step{start(tcp(one))}, false, flowTo(service.TCP, vip, two, syn), true},
		{"tcp to one that is gone, established", []step{start(tcp(one))}, false, flowTo(service.TCP, vip, two, established), false},
		{"tcp to one that is gone, established, drain", []step{start(tcp(one))}, true, flowTo(service.TCP, vip, two, established), true},
		{"tcp to one that is gone, ended, drain", []step{start(tcp(one))}, true, flowTo(service.TCP, vip, two, timeWait), false},
		{"tcp to one that serves, drain", []step{start(tcp(one))}, true, flowTo(service.TCP, vip, one, established), false},
		{"sctp from before the Service, established", []step{start(sctp(one))}, false, sctpFlow("192.0.2.1:30053", "192.0.2.1:30053", associated), false},
		{"sctp from before the Service, unanswered", []step{start(sctp(one))}, false, sctpFlow(vip, vip, kernel.SCTPClosed), true},

		// Later, only what has changed is.
		{"sctp, it is not ready, established", []step{start(sctp(one, two)), then(change(sctp(one, two), sctp(one, "-"+two)))}, false, sctpFlow(vip, two, associated), false},
		{"sctp, it is not ready, not established", []step{start(sctp(one, two)), then(change(sctp(one, two), sctp(one, "-"+two)))}, false, sctpFlow(vip, two, waiting), true},
		{"sctp, it goes, established", []step{start(sctp(one, two)), then(change(sctp(one, two), sctp(one)))}, false, sctpFlow(vip, two, associated), true},
		{"sctp, it is not ready and goes, established", []step{start(sctp(one, "-"+two)), then(change(sctp(one, "-"+two), sctp(one)))}, false, sctpFlow(vip, two, associated), true},
		{"udp, it goes", []step{start(udp(one, two)), then(change(udp(one, two), udp(one)))}, false, flowTo(service.UDP, vip, two, 0), true},
		{"udp, it goes, from a NodePort", []step{start(udp(one, two)), then(change(udp(one, two), udp(one)))}, false, flowTo(service.UDP, "192.0.2.1:30053", two, 0), true},
		{"udp, the last one goes", []step{start(udp(two)), then(change(udp(two), udp()))}, false, flowTo(service.UDP, "192.0.2.1:30053", two, 0), true},
		{"udp, another goes", []step{start(udp(one, two)), then(change(udp(one, two), udp(one)))}, false, flowTo(service.UDP, vip, one, 0), false},
		{"udp, to one that is not known yet", []step{start(udp(one, two)), then(change(udp(one, two), udp(one)))}, false, flowTo(service.UDP, vip, other, 0), false},
		{"tcp, it goes, unanswered", []step{start(tcp(one, two)), then(change(tcp(one, two), tcp(one)))}, false, flowTo(service.TCP, vip, two, syn), false},
		{"tcp, it goes, unanswered, drain", []step{start(tcp(one, two)), then(change(tcp(one, two), tcp(one)))}, true, flowTo(service.TCP, vip, two, syn), true},
		{"tcp, it goes, established, drain", []step{start(tcp(one, two)), then(change(tcp(one, two), tcp(one)))}, true, flowTo(service.TCP, vip, two, established), true},
		{"tcp, it is not ready, established, drain", []step{start(tcp(one, two)), then(change(tcp(one, two), tcp(one, "-"+two)))}, true, flowTo(service.TCP, vip, two, established), false},
		{"tcp, it is not ready and goes, established, drain", []step{start(tcp(one, "-"+two)), then(change(tcp(one, "-"+two), tcp(one)))}, true, flowTo(service.TCP, vip, two, established), true},
		{"tcp, it is not ready and goes, established", []step{start(tcp(one, "-"+two)), then(change(tcp(one, "-"+two), tcp(one)))}, false, flowTo(service.TCP, vip, two, established), false},
		{"tcp, it goes and comes back", []step{start(tcp(one, two)), then(append(change(tcp(one, two), tcp(one)), change(tcp(one), tcp(one, two))...))}, true, flowTo(service.TCP, vip, two, established), false},
		{"a new Service, an address that was routed", []step{start(), then(change(nil, servicePort("lb", service.UDP, []string{"203.0.113.1:53"}, one)))}, false, flowTo(service.UDP, "203.0.113.1:53", "203.0.113.1:53", 0), true},
		{"a new Service, tcp", []step{start(), then(change(nil, servicePort("lb", service.TCP, []string{"203.0.113.1:53"}, one)))}, false, flowTo(service.TCP, "203.0.113.1:53", "203.0.113.1:53", syn), true},
		{"a new Service, its NodePort", []step{start(), then(change(nil, udp(one)))}, false, flowTo(service.UDP, "192.0.2.1:30053", "192.0.2.1:30053", 0), true},
		{"the Service goes", []step{start(udp(one)), then(change(udp(one), nil))}, false, flowTo(service.UDP, vip, one, 0), true},
		{"the Service goes, its NodePort", []step{start(udp(one)), then(change(udp(one), nil))}, false, flowTo(service.UDP, "192.0.2.1:30053", one, 0), true},
		{"the Service goes, tcp", []step{start(tcp(one)), then(change(tcp(one), nil))}, true, flowTo(service.TCP, vip, one, established), false},
		{"the Service goes, not translated", []step{start(udp(one)), then(change(udp(one), nil))}, false, flowTo(service.UDP, vip, vip, 0), false},
		{"the Service was gone at a full apply", []step{start(udp(one)), start()}, false, flowTo(service.UDP, vip, one, 0), true},
		{"another Service gets the address", []step{start(udp(one)), then([]service.Change{{Old: udp(one)}, {New: servicePort("new", service.UDP, []string{vip}, two)}})}, false, flowTo(service.UDP, vip, one, 0), true},
		{"another Service has the address, and the same endpoint", []step{start(udp(one)), then([]service.Change{{Old: udp(one)}, {New: servicePort("new", service.UDP, []string{vip}, one)}})}, false, flowTo(service.UDP, vip, one, 0), false},
		{"NodePorts at all addresses", []step{start(udp(one)), atAll}, false, flowTo(service.UDP, "192.0.2.2:30053", two, 0), true},
		{"NodePorts at all addresses, another machine's", []step{start(udp(one)), atAll}, false, flowTo(service.UDP, "192.0.2.7:30053", two, 0), false},
		{"NodePorts at all addresses, loopback", []step{start(udp(one)), atAll}, false, flowTo(service.UDP, "127.0.0.1:30053", "127.0.0.1:30053", 0), false},
	} {
		own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("127.0.0.1")}
		rules := newFlowRules(c.drain, func(a netip.Addr) bool { return slices.Contains(own, a) })
		var why reasons
		for _, s := range c.steps {
			why = reasons{}
			rules.apply(s.changes, s.full, &why)
		}
		scope := rules.scopes(why)
		looked := slices.Contains(scope.of(service.IPv4), c.flow.Protocol)
		if got := looked && rules.stale(c.flow, why); got != c.want {
			t.Errorf("%s: got %v, want %v (reasons %+v)", c.name, got, c.want, why)
		}
	}
}

// TestWalksOnlyForAReason names the changes that cost nothing.
func TestWalksOnlyForAReason(t *testing.T) {
	p := func(name string, protocol service.Protocol, serving ...string) *service.Port {
		return servicePort(name, protocol, []string{"10.96.0.1:80"}, serving...)
	}
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	for _, c := range []struct {
		name     string
		old, new *service.Port
		cidrs    []netip.Prefix
		want     []service.Protocol
	}{
		{"a new ClusterIP", nil, p("a", service.UDP, one), cidrs, nil},
		{"a new ClusterIP where nothing drops what is unknown", nil, p("a", service.UDP, one), nil, []service.Protocol{service.UDP}},
		{"more endpoints", p("a", service.UDP, one), p("a", service.UDP, one, two), cidrs, nil},
		{"the first endpoint", p("a", service.TCP), p("a", service.TCP, one), cidrs, nil},
		{"fewer endpoints", p("a", service.UDP, one, two), p("a", service.UDP, one), cidrs, []service.Protocol{service.UDP}},
		{"fewer endpoints of TCP", p("a", service.TCP, one, two), p("a", service.TCP, one), cidrs, nil},
		{"a TCP Service goes", p("a", service.TCP, one), nil, cidrs, nil},
		{"an SCTP Service goes", p("a", service.SCTP, one), nil, cidrs, []service.Protocol{service.SCTP}},
	} {
		rules := newFlowRules(false, func(netip.Addr) bool { return false })
		if c.old != nil {
			rules.apply(service.Changes{Ports: []service.Change{{New: c.old}}}, true, &reasons{})
		}
		var why reasons
		rules.apply(service.Changes{Ports: []service.Change{{Old: c.old, New: c.new}}, OldCIDRs: c.cidrs}, false, &why)
		if diff := cmp.Diff(c.want, rules.scopes(why).of(service.IPv4)); diff != "" || why.empty() != (c.want == nil) {
			t.Errorf("%s: empty %v, protocols -want +got:\n%s", c.name, why.empty(), diff)
		}
	}
}

// TestReasonsAreBounded loses more endpoints than are remembered one by one.
func TestReasonsAreBounded(t *testing.T) {
	var why reasons
	k := service.Key{Protocol: service.UDP, Family: service.IPv6}
	addr := netip.MustParseAddr("fd00::1")
	for range maxReasons + 2 {
		why.lost(k, netip.AddrPortFrom(addr, 53))
		why.closed(target{service.UDP, netip.AddrPortFrom(addr, 54)}, service.IPv6)
		addr = addr.Next()
	}
	if len(why.gone)+len(why.ports) > maxReasons+1 || !why.whole || !why.isLost(k, netip.AddrPort{}) {
		t.Errorf("remembers %d and %d, whole is %v", len(why.gone), len(why.ports), why.whole)
	}
}

// fakeFlows keeps flows, and can fail.
type fakeFlows struct {
	mu    sync.Mutex // guards fail, which changes while the cleaner runs
	fail  error
	flows []kernel.Flow
	calls []string // "at 2s: ipv4 [udp]"
	began time.Time
	takes time.Duration
}

func (f *fakeFlows) Delete(_ context.Context, families []service.Family, protocols []service.Protocol, stale func(kernel.Flow) bool) (n int, err error) {
	f.calls = append(f.calls, fmt.Sprintf("at %s: %v %v", time.Since(f.began), families, protocols))
	time.Sleep(f.takes) // of the fake clock: a walk takes time
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return 0, f.fail
	}
	before := len(f.flows)
	f.flows = slices.DeleteFunc(f.flows, func(flow kernel.Flow) bool {
		return slices.Contains(families, flow.Family) && slices.Contains(protocols, flow.Protocol) && stale(flow)
	})
	return before - len(f.flows), nil
}

// bubble runs a cleaner over fake flows on a fake clock.
func bubble(t *testing.T, flows *fakeFlows, fn func(*cleaner)) {
	synctest.Test(t, func(t *testing.T) {
		flows.began = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		c := newCleaner(cleanerConfig{Flows: flows, Families: []service.Family{service.IPv4, service.IPv6}, Log: slog.New(slog.DiscardHandler)})
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		fn(c)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestWalksAreShared churns: the first change is acted on at once, those of the next second share a walk.
func TestWalksAreShared(t *testing.T) {
	with := servicePort("dns", service.UDP, []string{vip}, one, two)
	without := servicePort("dns", service.UDP, []string{vip}, one)
	flows := &fakeFlows{takes: 10 * time.Millisecond, flows: []kernel.Flow{flowTo(service.UDP, vip, two, 0), flowTo(service.UDP, vip, one, 0)}}
	bubble(t, flows, func(c *cleaner) {
		c.applied(service.Changes{Ports: []service.Change{{New: with}}}, true)
		synctest.Wait()
		for range 20 {
			c.applied(service.Changes{Ports: []service.Change{{Old: with, New: without}}}, false)
			c.applied(service.Changes{Ports: []service.Change{{Old: without, New: with}}}, false)
			time.Sleep(50 * time.Millisecond) // of the fake clock
		}
		c.applied(service.Changes{Ports: []service.Change{{Old: with, New: without}}}, false)
		time.Sleep(time.Minute) // of the fake clock
		synctest.Wait()
	})
	if diff := cmp.Diff([]string{"at 0s: [ipv4] [udp]", "at 1.01s: [ipv4] [udp]"}, flows.calls); diff != "" {
		t.Errorf("walks, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]kernel.Flow{flowTo(service.UDP, vip, one, 0)}, flows.flows, cmp.Comparer(func(a, b kernel.Flow) bool { return a == b })); diff != "" {
		t.Errorf("flows, -want +got:\n%s", diff)
	}
}

// TestServiceIsMadeAgain deletes a Service and makes another one at its ClusterIP before the next walk, or during one:
// flows to the endpoint of the old one must not stay, those to that of the new one must.
func TestServiceIsMadeAgain(t *testing.T) {
	before, after := servicePort("dns", service.UDP, []string{vip}, one), servicePort("dns", service.UDP, []string{vip}, two)
	for name, takes := range map[string]time.Duration{"before a walk": 0, "during a walk": 10 * time.Millisecond} {
		flows := &fakeFlows{takes: takes}
		bubble(t, flows, func(c *cleaner) {
			c.applied(service.Changes{Ports: []service.Change{{New: before}}}, true)
			time.Sleep(time.Minute) // of the fake clock
			flows.mu.Lock()
			flows.flows = []kernel.Flow{flowTo(service.UDP, vip, one, 0), flowTo(service.UDP, vip, two, 0)}
			flows.mu.Unlock()
			nets := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
			c.applied(service.Changes{Ports: []service.Change{{Old: before}}, OldCIDRs: nets, CIDRs: nets}, false)
			if takes > 0 {
				synctest.Wait() // the walk has begun
			}
			c.applied(service.Changes{Ports: []service.Change{{New: after}}, OldCIDRs: nets, CIDRs: nets}, false)
			time.Sleep(time.Minute) // of the fake clock
			synctest.Wait()
		})
		if len(flows.flows) != 1 || flows.flows[0].ReplySource != netip.MustParseAddrPort(two) {
			t.Errorf("%s: left %v", name, flows.flows)
		}
	}
}

// TestWalksAreRepeated fails for a while: no reason is lost.
func TestWalksAreRepeated(t *testing.T) {
	with := servicePort("dns", service.UDP, []string{vip}, one, two)
	without := servicePort("dns", service.UDP, []string{vip}, one)
	flows := &fakeFlows{fail: errors.New("interrupted"), flows: []kernel.Flow{flowTo(service.UDP, vip, two, 0)}}
	bubble(t, flows, func(c *cleaner) {
		c.applied(service.Changes{Ports: []service.Change{{New: with}}}, true)
		time.Sleep(10 * time.Second) // of the fake clock
		c.applied(service.Changes{Ports: []service.Change{{Old: with, New: without}}}, false)
		synctest.Wait()
		flows.mu.Lock()
		flows.fail = nil
		flows.mu.Unlock()
		time.Sleep(maxWalkPause) // of the fake clock
		synctest.Wait()
	})
	want := []string{"at 0s: [ipv4] [udp]", "at 2s: [ipv4] [udp]", "at 6s: [ipv4] [udp]", "at 14s: [ipv4] [udp]"}
	if diff := cmp.Diff(want, flows.calls); diff != "" || len(flows.flows) != 0 {
		t.Errorf("left %v, walks -want +got:\n%s", flows.flows, diff)
	}
}

// TestWalksEndWithoutTracking has a kernel that tracks nothing: it is asked once.
func TestWalksEndWithoutTracking(t *testing.T) {
	flows := &fakeFlows{fail: fmt.Errorf("list: %w", errors.ErrUnsupported)}
	bubble(t, flows, func(c *cleaner) {
		p := servicePort("dns", service.UDP, []string{vip}, one)
		c.applied(service.Changes{Ports: []service.Change{{New: p}}}, true)
		time.Sleep(time.Hour) // of the fake clock
	})
	if len(flows.calls) != 1 {
		t.Errorf("walks: %v", flows.calls)
	}
}
