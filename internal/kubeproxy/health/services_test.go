package health_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubeproxy/health"
	"varco.dev/internal/service"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func check(name string, port uint16, v4, v6 int) *service.HealthCheck {
	return &service.HealthCheck{Service: service.Name{Namespace: "ns", Name: name}, Port: port, Families: [2]bool{true, true}, Local: [2]int{v4, v6}}
}

// sockets is a network of pipes: it knows who listens where, and can refuse.
type sockets struct {
	mu     sync.Mutex
	open   map[string]*socket
	refuse map[string]error
	tries  int
}

func newSockets() *sockets { return &sockets{open: map[string]*socket{}, refuse: map[string]error{}} }

func (n *sockets) listen(_ context.Context, network, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tries++
	at := network + " " + address
	if err := n.refuse[at]; err != nil {
		return nil, err
	}
	if n.open[at] != nil {
		return nil, errors.New("address in use")
	}
	s := &socket{of: n, at: at, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.open[at] = s
	return s, nil
}

func (n *sockets) list() (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for at := range n.open {
		out = append(out, at)
	}
	slices.Sort(out)
	return out
}

// get asks over HTTP.
func (n *sockets) get(t *testing.T, at string) (*http.Response, string) {
	t.Helper()
	n.mu.Lock()
	s := n.open[at]
	n.mu.Unlock()
	if s == nil {
		t.Fatalf("nobody listens at %s", at)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			s.conns <- far
			return near, nil
		},
	}}
	resp, err := client.Get("http://node/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

type socket struct {
	of     *sockets
	at     string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (s *socket) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *socket) Close() error {
	s.once.Do(func() {
		s.of.mu.Lock()
		delete(s.of.open, s.at)
		s.of.mu.Unlock()
		close(s.closed)
	})
	return nil
}

func (s *socket) Addr() net.Addr { return &net.TCPAddr{} }

// start runs the server in a bubble until the test ends.
func start(t *testing.T, c health.ServicesConfig) *health.Services {
	c.Log = slog.New(slog.DiscardHandler)
	if c.Healthy == nil {
		c.Healthy = func() bool { return true }
	}
	s := health.NewServices(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	return s
}

func TestServicesListenWhereNodePortsAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newSockets()
		s := start(t, health.ServicesConfig{Listen: network.listen})
		a, b := check("a", 30001, 1, 0), check("b", 30002, 1, 0)
		moved, single := check("a", 30003, 1, 0), check("c", 30004, 1, 0)
		single.Families[1] = false
		for _, step := range []struct {
			name    string
			changes service.Changes
			full    bool
			want    []string
		}{
			{"start", service.Changes{NodeAddrs: addrs("10.0.0.1", "fd00::1"), Health: []service.HealthChange{{New: a}}}, true,
				[]string{"tcp4 10.0.0.1:30001", "tcp6 [fd00::1]:30001"}},
			{"another address", service.Changes{NodeAddrs: addrs("10.0.0.2")}, false, []string{"tcp4 10.0.0.2:30001"}},
			{"all addresses take in one", service.Changes{NodeAddrs: addrs("0.0.0.0", "127.0.0.1", "::", "fe80::1")}, false,
				[]string{"tcp4 0.0.0.0:30001", "tcp6 [::]:30001"}},
			{"of one family", service.Changes{NodeAddrs: addrs("10.0.0.2", "::", "::1")}, false,
				[]string{"tcp4 10.0.0.2:30001", "tcp6 [::]:30001"}},
			{"no link-local ones", service.Changes{NodeAddrs: addrs("10.0.0.2", "fe80::1")}, false, []string{"tcp4 10.0.0.2:30001"}},
			{"another port, and another Service", service.Changes{NodeAddrs: addrs("10.0.0.2"), Health: []service.HealthChange{{Old: a, New: moved}, {New: b}}}, false,
				[]string{"tcp4 10.0.0.2:30002", "tcp4 10.0.0.2:30003"}},
			{"the port of one for the other", service.Changes{NodeAddrs: addrs("10.0.0.2"), Health: []service.HealthChange{{Old: moved}, {Old: b, New: check("b", 30003, 1, 0)}}}, false,
				[]string{"tcp4 10.0.0.2:30003"}},
			{"of IPv4 alone", service.Changes{NodeAddrs: addrs("10.0.0.2", "::"), Health: []service.HealthChange{{Old: b}, {New: single}}}, false,
				[]string{"tcp4 10.0.0.2:30004"}},
			{"anew", service.Changes{NodeAddrs: addrs("10.0.0.2"), Health: []service.HealthChange{{New: a}}}, true, []string{"tcp4 10.0.0.2:30001"}},
			{"no addresses", service.Changes{}, false, nil},
		} {
			s.Apply(step.changes, step.full)
			synctest.Wait()
			if diff := cmp.Diff(step.want, network.list()); diff != "" {
				t.Errorf("%s: -want +got:\n%s", step.name, diff)
			}
		}
	})
}

func TestServicesAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, healthy := newSockets(), true
		s := start(t, health.ServicesConfig{Listen: network.listen, Healthy: func() bool { return healthy }})
		now := check("a", 30001, 0, 0)
		s.Apply(service.Changes{NodeAddrs: addrs("0.0.0.0", "::"), Health: []service.HealthChange{{New: now}}}, true)
		for _, c := range []struct {
			v4, v6  int
			healthy bool
			at      string
			code    int
			header  string
			want    string
		}{
			{2, 1, true, "tcp4 0.0.0.0:30001", 200, "2", "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"a\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"},
			{2, 1, true, "tcp6 [::]:30001", 200, "1", "\"localEndpoints\": 1,"},
			{0, 1, true, "tcp4 0.0.0.0:30001", 503, "0", "\"localEndpoints\": 0,\n\t\"serviceProxyHealthy\": true\n}"},
			{2, 1, false, "tcp4 0.0.0.0:30001", 503, "2", "\"serviceProxyHealthy\": false\n}"},
		} {
			next := check("a", 30001, c.v4, c.v6)
			s.Apply(service.Changes{NodeAddrs: addrs("0.0.0.0", "::"), Health: []service.HealthChange{{Old: now, New: next}}}, false)
			now, healthy = next, c.healthy
			synctest.Wait()
			resp, body := network.get(t, c.at)
			if resp.StatusCode != c.code || resp.Header.Get("X-Load-Balancing-Endpoint-Weight") != c.header ||
				resp.Header.Get("Content-Type") != "application/json" || !strings.Contains(body, c.want) {
				t.Errorf("%+v: got %d %v %s", c, resp.StatusCode, resp.Header, body)
			}
		}
	})
}

// TestServicesTryAgain takes a port away: the Service is told about once, others are served, and the port is taken as
// soon as a later attempt gets it.
func TestServicesTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newSockets()
		network.refuse["tcp4 10.0.0.1:30001"] = errors.New("address in use")
		var failed []string
		s := start(t, health.ServicesConfig{Listen: network.listen, Failed: func(n service.Name, port uint16, err error) {
			failed = append(failed, n.String()+": "+err.Error())
		}})
		s.Apply(service.Changes{NodeAddrs: addrs("10.0.0.1"), Health: []service.HealthChange{
			{New: check("a", 30001, 1, 0)}, {New: check("b", 30002, 1, 0)},
		}}, true)
		time.Sleep(10 * time.Minute) // of the fake clock
		synctest.Wait()
		if diff := cmp.Diff([]string{"ns/a: listen at 10.0.0.1:30001: address in use"}, failed); diff != "" {
			t.Errorf("told, -want +got:\n%s", diff)
		}
		if network.tries < 20 || network.tries > 30 {
			t.Errorf("%d attempts in ten minutes", network.tries)
		}
		network.mu.Lock()
		clear(network.refuse)
		network.mu.Unlock()
		time.Sleep(30 * time.Second) // of the fake clock
		synctest.Wait()
		if diff := cmp.Diff([]string{"tcp4 10.0.0.1:30001", "tcp4 10.0.0.1:30002"}, network.list()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

// TestServicesListenAgain breaks a socket: it is opened anew.
func TestServicesListenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newSockets()
		s := start(t, health.ServicesConfig{Listen: network.listen})
		s.Apply(service.Changes{NodeAddrs: addrs("10.0.0.1"), Health: []service.HealthChange{{New: check("a", 30001, 1, 0)}}}, true)
		synctest.Wait()
		network.mu.Lock()
		broken := network.open["tcp4 10.0.0.1:30001"]
		network.mu.Unlock()
		broken.Close()
		synctest.Wait()
		if resp, _ := network.get(t, "tcp4 10.0.0.1:30001"); resp.StatusCode != 200 {
			t.Errorf("got %d", resp.StatusCode)
		}
	})
}

// TestServicesOnRealSockets asks over TCP.
func TestServicesOnRealSockets(t *testing.T) {
	ready := make(chan string, 8)
	s := start(t, health.ServicesConfig{Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, network, netip.AddrPortFrom(netip.MustParseAddrPort(address).Addr(), 0).String())
		if err != nil {
			return nil, err
		}
		ready <- l.Addr().String()
		return l, nil
	}})
	s.Apply(service.Changes{NodeAddrs: addrs("127.0.0.1"), Health: []service.HealthChange{{New: check("a", 30001, 3, 0)}}}, true)
	resp, err := http.Get("http://" + <-ready)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("X-Load-Balancing-Endpoint-Weight"); resp.StatusCode != 200 || got != "3" {
		t.Errorf("got %d, weight %q", resp.StatusCode, got)
	}
}
