package kubeproxy

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// weighted are backends with the weights given, 10.0.0.1:80 and so on.
func weighted(weights ...uint16) (out []service.Backend) {
	for i, w := range weights {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80)
		out = append(out, service.Backend{Addr: at, Weight: w})
	}
	return out
}

// TestDraw compares shares with weights. What is asked for differs from what is drawn by less than six standard
// deviations, which happens once in 10^9 runs.
func TestDraw(t *testing.T) {
	const draws = 20000
	for name, c := range map[string]struct {
		weights []uint16
		not     int // number of one that is not usable; 0: none
		want    []float64
	}{
		"one":        {[]uint16{7}, 0, []float64{1}},
		"equal":      {[]uint16{1, 1, 1}, 0, []float64{1. / 3, 1. / 3, 1. / 3}},
		"by weight":  {[]uint16{1, 5, 2}, 0, []float64{1. / 8, 5. / 8, 2. / 8}},
		"0 is 1":     {[]uint16{0, 3}, 0, []float64{1. / 4, 3. / 4}},
		"not all":    {[]uint16{1, 5, 2}, 2, []float64{1. / 3, 0, 2. / 3}},
		"none of it": {[]uint16{1}, 1, []float64{0}},
	} {
		t.Run(name, func(t *testing.T) {
			backends, got := weighted(c.weights...), make([]float64, len(c.weights))
			for range draws {
				at, ok := draw(backends, func(b service.Backend) bool { return c.not == 0 || b != backends[c.not-1] })
				if ok {
					got[slices.IndexFunc(backends, func(b service.Backend) bool { return b.Addr == at })]++
				}
			}
			for i, want := range c.want {
				deviation := math.Sqrt(want * (1 - want) / draws)
				if share := got[i] / draws; math.Abs(share-want) > 6*deviation {
					t.Errorf("backend %d has a share of %.4f, want %.4f", i+1, share, want)
				}
			}
		})
	}
}

// TestLocalhostAffinity has a favourite backend of 64, which no draw finds again by chance.
func TestLocalhostAffinity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := weighted(make([]uint16, 64)...)
		target := nodePortTarget{port: &service.Port{Cluster: all, Affinity: time.Minute}}
		pick := func(failed ...netip.AddrPort) netip.AddrPort {
			t.Helper()
			at, ok := target.pick(failed)
			if !ok {
				t.Fatal("there is none")
			}
			return at
		}
		first := pick()
		for range 10 {
			time.Sleep(59 * time.Second) // of the fake clock
			if got := pick(); got != first {
				t.Fatalf("got %v within a minute of the last connection, want %v", got, first)
			}
		}
		second := pick(first)
		if second == first || pick() != second {
			t.Error("one that could not be reached stays the favourite")
		}
		target.port = &service.Port{Cluster: slices.DeleteFunc(slices.Clone(all), func(b service.Backend) bool { return b.Addr == second }), Affinity: time.Minute}
		if got := pick(); got == second {
			t.Error("one that is gone stays the favourite")
		}
		for name, change := range map[string]func(){
			"a minute has passed":     func() { time.Sleep(time.Minute) }, // of the fake clock
			"nothing was ever picked": func() { target = nodePortTarget{port: &service.Port{Cluster: all}} },
		} {
			target.port = &service.Port{Cluster: all, Affinity: time.Minute}
			seen := map[netip.AddrPort]bool{}
			for range 32 {
				seen[pick()] = true
				change()
			}
			if len(seen) < 2 {
				t.Errorf("%s, and all get the same", name)
			}
		}
		stayed := 0
		for range 32 {
			target.port = &service.Port{Cluster: all, Affinity: time.Hour}
			before := pick()
			target.port = &service.Port{Cluster: all}
			if pick() == before {
				stayed++
			}
		}
		if stayed == 32 {
			t.Error("a favourite outlives the affinity")
		}
		if at, ok := (&nodePortTarget{port: &service.Port{}}).pick(nil); ok {
			t.Errorf("got %v of none", at)
		}
	})
}

// TestLocalhostSlots wants TCP and UDP to be bounded apart, and both over all NodePorts.
func TestLocalhostSlots(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	silent, err := ns.Listen("tcp6", "[::1]:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	backends := []service.Backend{{Addr: netip.MustParseAddrPort("[::1]:9000")}}
	open := make(chan int, 2)
	l := NewLocalhost(LocalhostConfig{Network: ns, Count: func(n int) { open <- n }, Log: slog.New(slog.DiscardHandler)})
	c := service.Changes{NodeAddrs: []netip.Addr{netip.IPv6Loopback()}}
	for i, protocol := range []service.Protocol{service.TCP, service.TCP, service.UDP} {
		c.Ports = append(c.Ports, service.Change{New: &service.Port{
			Key:       service.Key{Port: strconv.Itoa(i), Protocol: protocol, Family: service.IPv6},
			Frontends: []service.Frontend{{Kind: service.NodePort, Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(30000+i))}},
			Cluster:   backends, Serving: backends,
		}})
	}
	l.Applied(c, true)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	if n := <-open; n != 3 {
		t.Errorf("%d NodePorts are served, want 3", n)
	}
	for i := range 2 {
		conn, err := ns.DialContext(t.Context(), "tcp6", "[::1]:"+strconv.Itoa(30000+i))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := silent.Accept(); err != nil { // the client has a slot
			t.Fatal(err)
		}
	}
	if tcp, udp := l.connections.Taken(), l.sessions.Taken(); tcp != 2 || udp != 0 {
		t.Errorf("two connections take %d and %d slots, want 2 and 0", tcp, udp)
	}
	backend, err := ns.ListenPacket("udp6", "[::1]:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	client, err := ns.DialContext(t.Context(), "udp6", "[::1]:30002")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("hello"))
	if _, _, err := backend.ReadFrom(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if tcp, udp := l.connections.Taken(), l.sessions.Taken(); tcp != 2 || udp != 1 {
		t.Errorf("with a session %d and %d slots are taken, want 2 and 1", tcp, udp)
	}
	cancel()
	if err := <-ended; err != nil || l.connections.Taken() != 0 || l.sessions.Taken() != 0 {
		t.Errorf("ended with %v, and slots taken", err)
	}
}

// slow is a network where nobody answers until the end of the test.
type slow struct {
	*nettest.Namespace
	dialing, release chan struct{}
}

func (s slow) DialContext(context.Context, string, string) (net.Conn, error) {
	close(s.dialing)
	<-s.release
	return nil, errors.New("no answer")
}

// TestLocalhostLeavesNothing has a connection outlast the context.
func TestLocalhostLeavesNothing(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	network, open := slow{ns, make(chan struct{}), make(chan struct{})}, make(chan int, 2)
	l := NewLocalhost(LocalhostConfig{Network: network, Count: func(n int) { open <- n }, Log: slog.New(slog.DiscardHandler)})
	l.Applied(service.Changes{NodeAddrs: []netip.Addr{netip.IPv6Loopback()}, Ports: []service.Change{{New: &service.Port{
		Key:       service.Key{Protocol: service.TCP, Family: service.IPv6},
		Frontends: []service.Frontend{{Kind: service.NodePort, Addr: netip.MustParseAddrPort("[::]:30000")}},
		Cluster:   weighted(1),
	}}}}, true)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	<-open
	client, err := ns.DialContext(t.Context(), "tcp6", "[::1]:30000")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	<-network.dialing
	cancel()
	<-open // nothing listens any more
	select {
	case <-ended:
		t.Error("ended while a connection was being opened")
	case <-time.After(50 * time.Millisecond):
	}
	close(network.release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLocalhostRemembers a favourite across changes and repairs, for as long as the Service port has backends.
func TestLocalhostRemembers(t *testing.T) {
	l := NewLocalhost(LocalhostConfig{})
	p := &service.Port{
		Key:       service.Key{Service: service.Name{Name: "web"}, Protocol: service.TCP, Family: service.IPv6},
		Frontends: []service.Frontend{{Kind: service.NodePort, Addr: netip.MustParseAddrPort("[::]:30001")}},
		Cluster:   weighted(make([]uint16, 64)...), Affinity: time.Hour,
	}
	apply := func(full bool) {
		l.Applied(service.Changes{Ports: []service.Change{{New: p}}}, full)
	}
	apply(true)
	first, _ := l.pick(p.Key, nil)
	for _, full := range []bool{false, true} {
		apply(full)
		if got, ok := l.pick(p.Key, nil); !ok || got != first {
			t.Errorf("full %v: got %v, want %v", full, got, first)
		}
	}
	l.Applied(service.Changes{}, true)
	if got, ok := l.pick(p.Key, nil); ok {
		t.Errorf("got %v of a port that is gone", got)
	}
}
